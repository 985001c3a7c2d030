//go:build integration

package rollout

import (
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// reloading is a reload that runs beside the test.
type reloading struct {
	a    *apps.App
	done chan error
}

// startReload returns when the reload has come so far that the status line contains words.
func startReload(a *apps.App, words string) *reloading {
	a.T.Helper()
	r := &reloading{a: a, done: make(chan error, 1)}
	go func() { r.done <- a.Systemctl(a.T.Context(), "reload", a.Name) }()
	a.AwaitStatus(words)
	return r
}

// slowly has each instance take two seconds to start, so that a rollout stays in each of its steps for
// long enough to be met there, however busy the machine is.
const slowly = "--property=ExecStartPre=-/bin/sleep 2" // a stop may end it

// testStopInRollout stops an app in the middle: everything stops, nothing is left failed, and it
// starts again.
func testStopInRollout(t *testing.T, s *apps.System) {
	a := start(t, s, "stopped", "--soak", "1s", slowly)
	for _, words := range []string{"trying the new code", inTheMiddle(a)} {
		r := startReload(a, words)
		a.MustSystemctl("stop", a.Name)
		if err := <-r.done; err == nil {
			t.Errorf("the reload that was cut off at %q has succeeded", words)
		}
		for _, unit := range []string{a.Shim(), a.Name + ".socket", a.Instance(1), a.Instance(a.N + 1), a.Socket(1), a.Socket(a.N + 1)} {
			a.MustWait(t, apps.Limit, unit, func(p rig.Properties) bool {
				return p["ActiveState"] == "inactive" || p["ActiveState"] == "failed"
			})
			if state := a.MustShow(t, unit, "ActiveState"); state != "inactive" {
				t.Errorf("%s is %s after a stop at %q", unit, state, words)
			}
		}
		a.MustSystemctl("start", a.Name)
		a.AwaitUp(a.N)
		healthyReload(a)
	}
}

// testStopStubborn stops an app whose program does not end on its signal: PID 1 kills the program at
// its time-out, and the balancer waits for that.
func testStopStubborn(t *testing.T, s *apps.System) {
	a := start(t, s, "stubborn", "--drain-timeout=1s", "--", "/bin/sh", "-c", "trap '' TERM; exec "+apps.CServer)
	a.MustSystemctl("stop", a.Name)
	for unit, want := range map[string]string{a.Shim(): "success", a.Instance(1): "timeout"} {
		if result := a.MustShow(t, unit, "Result"); result != want {
			t.Errorf("the result of %s is %s, want %s", unit, result, want)
		}
	}
}

// testStopInReexec has PID 1 execute itself while an app begins to stop, so that PID 1 does not answer
// ExecStop= at first: what is in flight is answered, and the port is closed meanwhile.
func testStopInReexec(t *testing.T, s *apps.System) {
	a := start(t, s, "rebooted", crude...)
	land := fly(a, a.Hold(2*a.N), "/slow?ms=3000")
	a.MustExec(t, "sh", "-c", "systemctl stop --no-block "+a.Name+"; systemctl daemon-reexec")
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	land()
	if log := a.Log(a.Shim()); !strings.Contains(log, "new connections are refused, the app stops") {
		t.Errorf("the port was not closed while the instances drained:\n%s", log)
	}
}

// testStopInReloadDrains stops an app in the middle of a reload, where PID 1 leaves out ExecStop=:
// what is in flight is answered, new connections are refused meanwhile.
func testStopInReloadDrains(t *testing.T, s *apps.System) {
	a := start(t, s, "quitting", append(crude, "--soak", "1s", slowly)...)
	for _, words := range []string{"trying the new code", inTheMiddle(a)} {
		r := startReload(a, words)
		land := fly(a, a.Hold(2*a.N), "/slow?ms=3000")
		a.MustSystemctl("stop", a.Name)
		<-r.done
		land()
		if result := a.MustShow(t, a.Shim(), "Result"); result != "success" {
			t.Errorf("stop at %q: the result of the shim is %s", words, result)
		}
		a.MustWait(t, apps.Limit, a.Name+".socket", func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
		a.MustSystemctl("start", a.Name)
		a.AwaitUp(a.N)
	}
}

// testCancel ends the rollout's process, once so that it can clean up and once so that the next
// shim must.
func testCancel(t *testing.T, s *apps.System) {
	a := start(t, s, "cancel", "--soak", "1s", slowly)
	load := a.Load(rig.LoadOptions{Rate: 100})
	for _, signal := range []string{"TERM", "KILL"} {
		r := startReload(a, inTheMiddle(a))
		a.MustExec(t, "kill", "-s", signal, a.MustShow(t, a.Shim(), "ControlPID"))
		if err := <-r.done; err == nil {
			t.Errorf("SIG%s: the reload has succeeded", signal)
		}
		checkUp(a)
		healthyReload(a)
	}
	a.Lossless(load.Stop())
}

// testKillShimInRollout kills the shim in the middle: the next one takes over, and the next reload
// goes through.
func testKillShimInRollout(t *testing.T, s *apps.System) {
	a := start(t, s, "headless", "--soak", "1s", slowly)
	load := a.Load(rig.LoadOptions{Rate: 100})
	for _, words := range []string{"trying the new code", inTheMiddle(a)} {
		r := startReload(a, words)
		shim := a.PID(a.Shim())
		a.MustExec(t, "kill", "-s", "KILL", shim)
		began := time.Now()
		if err := <-r.done; err == nil {
			t.Errorf("shim killed at %q: the reload has succeeded", words)
		}
		t.Logf("shim killed at %q: reload ended after %s", words, time.Since(began).Round(time.Millisecond))
		if log := a.Log(a.Shim()); !strings.Contains(log, "the balancer has ended in the middle of the rollout") {
			t.Errorf("no reason in the journal:\n%s", log)
		}
		a.AwaitNew(a.Shim(), shim)
		checkNoExtra(a) // which the next shim had removed, without another reload
		healthyReload(a)
	}
	r := load.Stop()
	a.Lossless(r)
	t.Logf("load: %s", r)
}

// testDaemonReload lets PID 1 read its units, and execute itself, anew in the middle: the rollout
// goes on.
func testDaemonReload(t *testing.T, s *apps.System) {
	// The rollout takes longer than a start may: a time-out of PID 1 that begins anew must not end
	// it.
	a := start(t, s, "reread", "--soak", "9s", "--start-timeout", "3s")
	load := a.Load(rig.LoadOptions{Rate: 100})
	for _, verb := range []string{"daemon-reload", "daemon-reexec"} {
		before := a.PIDs()
		r := startReload(a, "trying the new code") // for 9 s
		a.MustSystemctl(verb)
		// The client of a PID 1 that executes itself loses its connection; what counts is how the
		// rollout ends.
		if err := <-r.done; err != nil && verb == "daemon-reload" {
			t.Errorf("%s: %v", verb, err)
		}
		a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "active" })
		if result := a.MustShow(t, a.Shim(), "ReloadResult"); result != "success" {
			t.Errorf("%s: ReloadResult=%s", verb, result)
		}
		for number, pid := range a.PIDs() {
			if pid == before[number] {
				t.Errorf("%s: instance %d is not new", verb, number)
			}
		}
		checkNoExtra(a)
	}
	a.Lossless(load.Stop())
}

// checkUp waits until all instances, and no other one, take connections.
func checkUp(a *apps.App) {
	a.T.Helper()
	a.AwaitUp(a.N)
	a.Serves("pid=")
}

// healthyReload reloads with success, and checks that nothing of earlier ones is left.
func healthyReload(a *apps.App) {
	a.T.Helper()
	before := a.PIDs()
	a.Reload()
	for number, pid := range a.PIDs() {
		if pid == before[number] {
			a.T.Errorf("instance %d is not new", number)
		}
	}
	checkNoExtra(a)
	checkUp(a)
	if text := a.MustShow(a.T, a.Shim(), "StatusText"); strings.Contains(text, "rollout") {
		a.T.Errorf("status after a good reload: %q", text)
	}
}
