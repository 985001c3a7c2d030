//go:build integration

package node

import (
	"fmt"
	"testing"
	"time"
)

// testStorm ends WebSockets, which would never end by themselves: busy ones in the last part of the
// drain time-out, idle ones when nothing else is under way. Either way they are closed one after
// another.
func testStorm(t *testing.T, s *system, node string) {
	const sockets = 8
	for _, busy := range []bool{true, false} {
		a := newApp(t, s, node, fmt.Sprintf("storm-%t", busy))
		a.n = 1
		s.MustExec(t, "unitgen", a.name, a.size(), fmt.Sprintf("--listen=%d", a.port), "--drain-timeout=10s",
			"--working-directory=/srv", "--now", "--", node, "websocket.js")
		a.awaitUp()
		ended := make(chan time.Time, sockets)
		for range sockets {
			ws := a.webSocket("/")
			ws.ask("hello")
			go ws.untilEnd(busy, ended)
		}
		s.MustExec(t, "systemctl", "restart", a.instance(1))
		first := <-ended
		last := first
		for range sockets - 1 {
			last = <-ended
		}
		// 8 in 2 s, or in 5 s; at once they would end within some milliseconds.
		if spread := last.Sub(first); spread < 500*time.Millisecond {
			t.Errorf("%d WebSockets (busy: %t) ended within %s", sockets, busy, spread)
		}
	}
}

// untilEnd tells when the other side closes; a busy client never pauses for long.
func (ws *webSocket) untilEnd(busy bool, ended chan<- time.Time) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for {
			if _, err := ws.answers.Discard(1); err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-closed:
			ended <- time.Now()
			return
		case <-tick.C:
			if busy {
				ws.Write([]byte{0x81, 0x81, 0, 0, 0, 0, 'x'}) // fails once it is closed, which the reader tells
			}
		}
	}
}
