//go:build integration

package integration

import (
	"maps"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
)

// testLeastConnections holds connections, closes those of one instance and sees who gets the next
// ones.
func testLeastConnections(t *testing.T, s *apps.System) {
	a := startApp(t, s, "least", "--instances=4", "--strategy=least-connections")
	even := func(n int) map[string]int { return map[string]int{"1": n, "2": n, "3": n, "4": n} }
	held := a.Hold(40)
	if got := byInstance(held); !maps.Equal(got, even(10)) {
		t.Errorf("40 connections by instance = %v, want 10 each", got)
	}
	held = a.release(held, "3")
	fresh := a.Hold(10)
	if got := byInstance(fresh); !maps.Equal(got, map[string]int{"3": 10}) {
		t.Errorf("10 connections after instance 3 lost all of its own = %v, want all there", got)
	}
	held = append(held, fresh...)

	undo := a.DropIn(a.Shim(), "[Service]\nRestartSec=1h\n")
	held = a.release(held, "2")
	a.Signal(a.Shim(), "KILL")
	a.awaitSub(a.Shim(), "auto-restart")
	fresh = a.Hold(10)
	if got := byInstance(fresh); !maps.Equal(got, map[string]int{"2": 10}) {
		t.Errorf("10 connections without a shim, after instance 2 lost all of its own = %v, want all there", got)
	}
	held = append(held, fresh...)
	undo() // and PID 1 starts the next shim: a restart would renew the instances
	a.AwaitUp(a.N)
	held = a.release(held, "1")
	fresh = a.Hold(10)
	if got := byInstance(fresh); !maps.Equal(got, map[string]int{"1": 10}) {
		t.Errorf("10 connections with the next shim, after instance 1 lost all of its own = %v, want all there", got)
	}
	if got := byInstance(append(held, fresh...)); !maps.Equal(got, even(10)) {
		t.Errorf("connections by instance = %v, want 10 each", got)
	}
	if got := a.Status().Strategy; got != "least-connections" {
		t.Errorf("strategy = %q", got)
	}
}

// release closes the connections to one instance and returns the others, once the shim says that
// they have ended.
func (a *testApp) release(all []*apps.Held, instance string) (rest []*apps.Held) {
	a.T.Helper()
	for _, h := range all {
		if h.Instance == instance {
			h.Close()
		} else {
			rest = append(rest, h)
		}
	}
	a.awaitConnections(len(rest))
	return rest
}
