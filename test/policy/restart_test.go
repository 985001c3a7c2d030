//go:build integration

package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// crash kills an instance, calls meanwhile if it is not nil, and returns how long it took until the
// instance was started again: its delay, and what a busy machine adds.
func crash(a *apps.App, i int, meanwhile func()) time.Duration {
	a.T.Helper()
	pid, began := a.PID(a.Instance(i)), monotonic(a.T)
	a.MustExec(a.T, "kill", "-s", "KILL", pid)
	if meanwhile != nil {
		meanwhile()
	}
	p := a.MustWait(a.T, apps.Limit, a.Instance(i), func(p rig.Properties) bool {
		return p["ActiveState"] == "active" && p["MainPID"] != pid
	})
	return timestamp(p, "ExecMainStartTimestampMonotonic") - began
}

// testBackOff crashes one instance time and again: its delay doubles, whatever becomes of the
// balancer meanwhile, and begins anew when the instance was up for long enough.
func testBackOff(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "backoff", "--restart-delay", "500ms")
	load := a.Load(rig.LoadOptions{Rate: 50})
	const unit, crashes = 2, 5
	killShim := func() {
		a.MustWait(t, apps.Limit, a.Instance(unit), func(p rig.Properties) bool { return p["SubState"] == "stop-post" })
		shim := a.PID(a.Shim())
		a.MustExec(t, "kill", "-s", "KILL", shim)
		a.AwaitNew(a.Shim(), shim)
	}
	for i, want := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second} {
		var meanwhile func()
		if i == 3 {
			// Its restart starts what it wants. That cuts off the part of the delay that is PID
			// 1's, and nothing else.
			meanwhile = killShim
			want -= 500 * time.Millisecond
		}
		if got := crash(a, unit, meanwhile); got < want {
			t.Errorf("restart %d after %s, want %s at least", i+1, got, want)
		}
	}
	a.AwaitUp(a.N)
	a.MustWait(t, apps.Limit, a.Instance(unit), func(p rig.Properties) bool {
		return monotonic(t)-timestamp(p, "ActiveEnterTimestampMonotonic") > app.MaxRestartDelay+time.Second
	})
	if got := crash(a, unit, nil); got > 8*time.Second {
		t.Errorf("restart after a long time up took %s, as if the failures before it counted", got)
	}
	a.AwaitUp(a.N)
	a.LostAtMost(load.Stop(), crashes) // one at a time: there are 50 in a second
}

// testRestartByHand restarts an instance in the middle of a delay that nobody could wait for.
func testRestartByHand(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "patient", "--restart-delay", "1h")
	crash(a, 1, func() {
		a.MustWait(t, apps.Limit, a.Instance(1), func(p rig.Properties) bool {
			return strings.HasPrefix(p["SubState"], "auto-restart")
		})
		a.MustSystemctl("restart", a.Instance(1))
	})
	a.AwaitUp(a.N)
}

// testMaxRestarts crashes one instance too often: it stays down and the others serve, until a
// rollout forgives it.
func testMaxRestarts(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "limited", "--max-restarts", "2", "--within", "1h", "--restart-delay", "100ms", "--soak", "100ms")
	load := a.Load(rig.LoadOptions{Rate: 50})
	crash(a, 1, nil)
	crash(a, 1, nil)
	a.Signal(a.Instance(1), "KILL")
	// The third restart is counted, and then refused.
	a.MustWait(t, apps.Limit, a.Instance(1), func(p rig.Properties) bool { return p["ActiveState"] == "failed" && p["NRestarts"] == "3" })
	a.AwaitStatus("2/") // of 3, or of 2: PID 1 ends the listener of an instance that it will not start
	a.AwaitOK(load, 50)
	a.Reload()
	a.AwaitUp(a.N)
	a.LostAtMost(load.Stop(), 3) // it was killed so often
}

// testStopExitCodes ends instances with a status that is to be their last, and with another one.
func testStopExitCodes(t *testing.T, s *apps.System) {
	a := moody(t, s, "final", "--stop-exit-codes", "42,43", "--restart-delay", "100ms")
	before := a.PIDs()
	for i, path := range map[int]string{2: "/exit?code=43", 3: "/exit?code=44"} {
		if _, err := at(a, i).Get(path); err == nil {
			t.Fatalf("%s was answered", path)
		}
		a.MustWait(t, apps.Limit, a.Instance(i), func(p rig.Properties) bool { return p["MainPID"] != before[i] })
	}
	a.AwaitNew(a.Instance(3), before[3])
	a.MustWait(t, apps.Limit, a.Instance(2), func(p rig.Properties) bool {
		return p["ActiveState"] == "failed" && p["ExecMainStatus"] == "43" && p["NRestarts"] == "0"
	})
	a.AwaitStatus("2/3 instances up")
}

// testWatchdog hushes one instance: systemd kills it and starts it again, and leaves alone those
// that give a sign of life.
func testWatchdog(t *testing.T, s *apps.System) {
	a := moody(t, s, "watched", "--ready", "notify", "--watchdog", "10s", "--restart-delay", "100ms")
	before := a.PIDs()
	if _, err := at(a, 2).Get("/hush"); err != nil {
		t.Fatal(err)
	}
	a.AwaitNew(a.Instance(2), before[2])
	if log := a.Log(a.Instance(2)); !strings.Contains(log, "Watchdog timeout") {
		t.Errorf("no word of the watchdog:\n%s", log)
	}
	for _, i := range []int{1, 3} {
		if pid := a.PID(a.Instance(i)); pid != before[i] {
			t.Errorf("instance %d is new too", i)
		}
	}
	a.AwaitUp(a.N)
}
