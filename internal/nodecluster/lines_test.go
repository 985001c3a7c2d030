package nodecluster

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// However a stream is cut in pieces, and whoever has no room for a line at first, every line comes
// once and in order, but for those that are too long.
func TestLines(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	var want [][]byte
	for range 300 {
		length := random.IntN(200)
		switch random.IntN(10) {
		case 0:
			length = MaxLine - 2 + random.IntN(5)
		case 1:
			length = random.IntN(3 * MaxLine)
		}
		line := bytes.Repeat([]byte{'a' + byte(random.IntN(26))}, length)
		stream = append(append(stream, line...), '\n')
		if length <= MaxLine {
			want = append(want, line)
		}
	}
	var l lines
	for len(stream) > 0 {
		n := copy(l.space()[:1+random.IntN(chunk)], stream)
		stream = stream[n:]
		l.add(n)
		for {
			line, ok := l.next()
			if !ok {
				break
			}
			if random.IntN(10) == 0 {
				l.putBack()
				break
			}
			if len(want) == 0 || !bytes.Equal(line, want[0]) {
				t.Fatalf("with %d bytes and %d lines left there comes one of %d bytes", len(stream), len(want), len(line))
			}
			want = want[1:]
		}
	}
	for line, ok := l.next(); ok; line, ok = l.next() {
		if len(want) == 0 || !bytes.Equal(line, want[0]) {
			t.Fatalf("at the end a line of %d bytes is left", len(line))
		}
		want = want[1:]
	}
	if len(want) > 0 {
		t.Errorf("%d lines were lost", len(want))
	}
	if len(l.buf) > 4*MaxLine {
		t.Errorf("the buffer has grown to %d bytes", len(l.buf))
	}
}
