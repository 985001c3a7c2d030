package nodecluster

import (
	"encoding/json"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func pipe(t *testing.T) (read, write int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

func TestHandedConnectionGoesWithItsLine(t *testing.T) {
	c, worker := pair(t)
	_, fd := pipe(t)
	for _, key := range []string{"K", `/run/"a"` + "\n"} {
		seq, err := c.Hand(QuoteKey(key), fd)
		if err != nil {
			t.Fatal(err)
		}
		line, descriptors := read(t, worker)
		var m struct {
			Cmd, Type string
			Msg       struct {
				Cmd, Act, Key string
				Seq           uint64
			}
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if m.Cmd != "NODE_HANDLE" || m.Type != "net.Native" || m.Msg.Cmd != "NODE_CLUSTER" || m.Msg.Act != "newconn" || m.Msg.Key != key || m.Msg.Seq != seq {
			t.Errorf("worker got %q, want a newconn for %q with number %d", line, key, seq)
		}
		if len(descriptors) != 1 {
			t.Errorf("%d descriptors came with it", len(descriptors))
		}
		for _, fd := range descriptors {
			unix.Close(fd)
		}
	}
}

// A worker that does not read is no reason to wait, and a line is never cut.
func TestHandNeverWaits(t *testing.T) {
	c, worker := pair(t)
	_, fd := pipe(t)
	sent := 0
	for ; sent < 1e6; sent++ {
		if _, err := c.Hand(QuoteKey("K"), fd); err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				t.Fatal(err)
			}
			break
		}
	}
	if sent == 0 || sent == 1e6 {
		t.Fatalf("%d connections were sent to a worker that does not read", sent)
	}
	for range sent {
		line, descriptors := read(t, worker)
		if !json.Valid([]byte(line)) || len(descriptors) != 1 {
			t.Fatalf("worker got %q with %d descriptors", line, len(descriptors))
		}
		unix.Close(descriptors[0])
	}
	if _, err := c.Hand(QuoteKey("K"), fd); err != nil {
		t.Errorf("when it has read: %v", err)
	}
}

// While a payload waits for a worker that does not read, connections go elsewhere.
func TestHandDoesNotWaitForWriters(t *testing.T) {
	c, _ := pair(t)
	_, fd := pipe(t)
	c.writing.Lock()
	defer c.writing.Unlock()
	if _, err := c.Hand(QuoteKey("K"), fd); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("beside a line that is being written: %v, want EAGAIN", err)
	}
}
