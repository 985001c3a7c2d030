//go:build integration

package integration

import (
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testSourceHash has the kernel choose by the client's address, for a program that knows nothing of
// it.
func testSourceHash(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "sticky", "--strategy=source-hash", "--", apps.CServer)
	if got := a.Status(); got.Strategy != "source-hash" || got.Path != "steer" {
		t.Errorf("strategy %s on path %s", got.Strategy, got.Path)
	}
	a.Sticky()

	// Another strategy, and this one again, by a reload.
	a.Unitgen("--strategy=round-robin")
	a.Reload()
	a.Evenly()
	first := a.Sticks()
	a.Unitgen("--strategy=source-hash")
	a.Reload()
	if again := a.Sticks(); len(again) != len(first) {
		t.Errorf("%d of %d clients were answered", len(again), len(first))
	}
	if got := a.Status().Strategy; got != "source-hash" {
		t.Errorf("strategy after a reload = %q", got)
	}
}

// testRandomTwo holds connections: no instance has many more of them than another.
func testRandomTwo(t *testing.T, s *apps.System) {
	a := startApp(t, s, "two", "--instances=4", "--strategy=random-two", "--weights=2,1,1,1")
	held := a.Hold(100)
	for instance, want := range map[string]int{"1": 40, "2": 20, "3": 20, "4": 20} {
		if got := byInstance(held)[instance]; got < want-10 || got > want+10 {
			t.Errorf("connections by instance = %v, want 40, 20, 20 and 20", byInstance(held))
		}
	}
	if got := a.Status().Strategy; got != "random-two" {
		t.Errorf("strategy = %q", got)
	}
	load := a.Load(rig.LoadOptions{Requests: 400})
	pid := a.PID(a.Shim())
	a.Signal(a.Shim(), "KILL")
	a.Lossless(load.Wait())
	a.AwaitNew(a.Shim(), pid)
	a.AwaitUp(a.N)
	if got := a.Status(); got.Strategy != "random-two" || strings.Contains(got.Reason, "not possible") {
		t.Errorf("strategy after a crash of the balancer = %q, %s", got.Strategy, got.Reason)
	}
}
