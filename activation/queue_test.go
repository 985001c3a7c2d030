package activation

import (
	"errors"
	"net"
	"net/http"
	"testing"
)

func TestQueueIsEmptiedOnStop(t *testing.T) {
	noLeaks(t)
	l, _ := listenTCP(t)
	q := newQueue(l)
	const n = 20
	for range n {
		dial(t, l.Addr())
	}
	if err := q.stop(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		c, err := q.Accept()
		if err != nil {
			t.Fatalf("connection %d of %d: %v", i, n, err)
		}
		c.Close()
	}
	if _, err := q.Accept(); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("got error %v, want http.ErrServerClosed", err)
	}
}

// Stop comes at any moment of a busy accept loop; no connection made before it may be left in the
// queue.
func TestQueueStopRaces(t *testing.T) {
	noLeaks(t)
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		q := newQueue(l)
		accepted := make(chan int)
		go func() {
			n := 0
			for {
				c, err := q.Accept()
				if err != nil {
					accepted <- n
					return
				}
				c.Close()
				n++
			}
		}()
		const n = 10
		for range n {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		if err := q.stop(); err != nil {
			t.Fatal(err)
		}
		if got := <-accepted; got != n {
			t.Fatalf("accepted %d of %d connections", got, n)
		}
		l.Close()
	}
}
