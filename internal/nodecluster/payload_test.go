package nodecluster

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestNewPayload(t *testing.T) {
	for value, want := range map[string]string{
		`"shutdown"`:                `"shutdown"`,
		" {\n \"a\": [1, 2] }\n":    `{"a":[1,2]}`,
		`{"cmd":"NODE_"}`:           `{"cmd":"NODE_"}`, // too short for one of Node's own
		`{"data":{"cmd":"NODE_X"}}`: `{"data":{"cmd":"NODE_X"}}`,
	} {
		if l, err := NewPayload([]byte(value)); err != nil || string(l.line) != want+"\n" {
			t.Errorf("of %q came %q, %v", value, l.line, err)
		}
	}
	for value, want := range map[string]string{
		``: "not JSON", `{`: "not JSON", `1 2`: "not JSON", "\"a\nb\"": "not JSON",
		strings.Repeat("[", 20000) + strings.Repeat("]", 20000): "not JSON",
		`"` + strings.Repeat("x", MaxLine) + `"`:                "the limit is",
		`{"cmd":"NODE_CLUSTER","act":"disconnect"}`:             "begins with NODE_",
		`{"cmd":"x","cm\u0064":"NODE_HANDLE"}`:                  "begins with NODE_",
	} {
		if _, err := NewPayload([]byte(value)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q was refused with %v, want words %q", value, err, want)
		}
	}
}

// A worker that reads nothing loses payloads, and none of the replies, for which there is room at
// any time. When it reads again, it gets every payload that was taken, in order.
func TestPayloadsWaitForAWorkerThatDoesNotRead(t *testing.T) {
	c, worker := pair(t)
	taken, refused := 0, 0
	text := strings.Repeat("x", MaxLine-100)
	full := time.Now()
	for time.Since(full) < 500*time.Millisecond { // until nothing moves any more
		l, err := NewPayload(fmt.Appendf(nil, `{"n":%d,"text":%q}`, taken, text))
		if err != nil {
			t.Fatal(err)
		}
		if c.Post(l) {
			taken++
			full = time.Now()
		} else {
			refused++
		}
	}
	if taken < 3 || taken > 64 {
		t.Errorf("%d payloads of 64 KiB were taken", taken)
	}
	const replies = 50
	sent := make(chan bool)
	go func() {
		ok := true
		for range replies {
			ok = ok && c.Send(AckHandle())
		}
		sent <- ok
	}()
	select {
	case ok := <-sent:
		if !ok {
			t.Fatal("the channel has failed")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("payloads hold up replies")
	}
	lines := bufio.NewReaderSize(worker, MaxLine)
	for n, acks := 0, 0; n < taken || acks < replies; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatalf("after %d payloads and %d replies: %v", n, acks, err)
		}
		var got struct {
			N   int
			Cmd string
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%.60q: %v", line, err)
		}
		switch {
		case got.Cmd != "":
			acks++
		case got.N != n:
			t.Fatalf("payload %d came as number %d", got.N, n)
		default:
			n++
		}
	}
}
