//go:build integration

package rollout

import (
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testKillShimInDrain kills the shim while instances drain whose programs end in the middle of what they do: the drains go on
// with the next shim.
func testKillShimInDrain(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "orphaned", crude...)
	load := a.Load(rig.LoadOptions{Rate: 50})
	land := fly(a, a.Hold(4*a.N), "/slow?ms=6000")
	restarted := make(chan error, 1)
	go func() { restarted <- a.Systemctl(t.Context(), "restart", a.Instance(1), a.Instance(2), a.Instance(3)) }()
	for i := range a.N {
		a.AwaitStatus(a.Name + "@" + string(rune('1'+i)) + " draining")
	}
	pid := a.PID(a.Shim())
	a.MustExec(t, "kill", "-s", "KILL", pid)
	a.AwaitNew(a.Shim(), pid)
	land()
	if err := <-restarted; err != nil {
		t.Errorf("restart of the instances: %v", err)
	}
	a.AwaitUp(a.N)
	a.Lossless(load.Stop())
	if log := a.Log(a.Shim()); strings.Contains(log, "timed_out=true") {
		t.Errorf("a drain went on to its time-out:\n%s", log)
	}
}

// testKillShimEarlyInReload kills a shim that has not answered the first question of a reload yet. PID 1 starts the next one
// when the reload is over, so that one must not wait for an answer.
func testKillShimEarlyInReload(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "early")
	load := a.Load(rig.LoadOptions{Rate: 100})
	shim := a.PID(a.Shim())
	a.Signal(a.Shim(), "STOP")
	done := make(chan error, 1)
	go func() { done <- a.Systemctl(t.Context(), "reload", a.Name) }()
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "reloading" })
	a.MustExec(t, "kill", "-s", "KILL", shim)
	began := time.Now()
	if err := <-done; err == nil {
		t.Error("the reload has succeeded")
	}
	a.AwaitNew(a.Shim(), shim)
	took := time.Since(began)
	t.Logf("the next shim is there after %s", took.Round(time.Millisecond))
	if took > rescueLimit {
		t.Errorf("the next shim is there after %s, want at most %s", took, rescueLimit)
	}
	if log := a.Log(a.Shim()); !strings.Contains(log, "the balancer has ended in the middle of the rollout") {
		t.Errorf("no reason in the journal:\n%s", log)
	}
	healthyReload(a)
	a.Lossless(load.Stop())
}

// testScaleInReload makes the app larger by the number of the extra instance of a reload: while that goes on, and after one
// that was cut off. Who is told that the instance runs keeps it.
func testScaleInReload(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "growing", "--soak", "2s")
	load := a.Load(rig.LoadOptions{Rate: 100})
	for _, cutOff := range []bool{false, true} {
		extra := a.Instance(a.N + 1)
		r := startReload(a, "trying the new code")
		a.MustWait(t, apps.Limit, extra, func(p rig.Properties) bool { return p["ActiveState"] == "active" })
		if cutOff {
			a.MustExec(t, "kill", "-s", "KILL", a.MustShow(t, a.Shim(), "ControlPID"))
			if err := <-r.done; err == nil {
				t.Error("the reload that was cut off has succeeded")
			}
		}
		pid := a.PID(extra)
		a.MustExec(t, "unitgen", "scale", a.Name, "+1")
		a.N++
		if !cutOff {
			if err := <-r.done; err != nil {
				t.Errorf("reload: %v", err)
			}
			if now := a.PID(extra); now != pid {
				t.Errorf("%s was stopped by the reload that had started it", extra)
			}
		}
		a.AwaitUp(a.N)
		healthyReload(a)
	}
	a.Lossless(load.Stop())
}
