//go:build integration

package integration

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testIdleExit lets an app go to sleep and wakes it up, twice, and reloads it while nobody uses it:
// new code has to stay up for longer than the app has to be idle.
func testIdleExit(t *testing.T, s *apps.System) {
	a := newApp(t, s, "idle", "--now", "--idle-exit=500ms", "--soak=2s")
	for pass := range 2 {
		a.awaitIdle()
		inode := a.inodes()
		waking := a.load(rig.LoadOptions{Clients: 20, Requests: 20})
		awake := a.Hold(1)[0]
		a.Lossless(waking.Wait())
		a.AwaitUp(a.N)
		if inode == "" {
			t.Error("the port of an idle app is closed")
		}
		a.evenly(a.Addr(), a.pids(a.N))
		if pass == 0 {
			a.reloadWithout(awake)
		}
		awake.Close()
	}
}

// reloadWithout reloads an app that goes to sleep without awake, which ends when the reload has begun.
func (a *testApp) reloadWithout(awake *apps.Held) {
	a.T.Helper()
	shim := a.PID(a.Shim())
	begun := make(chan error, 1)
	go func() { // ends with the wait, which the reload outlasts
		ctx, cancel := context.WithTimeout(a.T.Context(), apps.Limit)
		defer cancel()
		_, err := a.WaitFor(ctx, a.Shim(), func(p rig.Properties) bool { return p["SubState"] == "reload" })
		awake.Close()
		begun <- err
	}()
	a.Reload()
	if err := <-begun; err != nil {
		a.T.Fatal(err)
	}
	// It may sleep by now, and then has no MainPID.
	if pid := a.MustShow(a.T, a.Shim(), "ExecMainPID"); pid != shim {
		a.T.Errorf("the balancer is process %s after a reload that has succeeded, and was %s", pid, shim)
	}
}

// testWakeWhileIdling connects when an idle app stops: the connection waits for its next start, and no
// instance waits for the connection.
func testWakeWhileIdling(t *testing.T, s *apps.System) {
	a := newApp(t, s, "woken", "--now", "--idle-exit=500ms", "--drain-timeout=5s")
	awake := a.Hold(1)[0]
	drain := a.MustExec(t, "grep", "^ExecStop=", "/etc/systemd/system/"+a.Name+"@.service")
	a.DropIn(a.Instance(1), "[Service]\nExecStop=\nExecStop=/bin/sleep 1\n"+drain) // so that there is time to connect
	awake.Close()
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["SubState"] == "stop-post" })
	a.Lossless(a.load(rig.LoadOptions{Clients: 1, Requests: 1}).Wait())
	if log := a.Log(a.Name + "@*"); strings.Contains(log, "timed_out=true") {
		t.Errorf("an instance has waited for a connection that waits for its end:\n%s", log)
	}
}

// awaitIdle waits until shim and instances have stopped by themselves.
func (a *testApp) awaitIdle() {
	a.T.Helper()
	for _, unit := range append(a.instances(), a.Shim()) {
		a.MustWait(a.T, apps.Limit, unit, func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	}
	if got := a.MustShow(a.T, a.Name+".socket", "ActiveState"); got != "active" {
		a.T.Errorf("the parking listener of an idle app is %s", got)
	}
}

// testStopWhileIdle stops an app that sleeps.
func testStopWhileIdle(t *testing.T, s *apps.System) {
	a := newApp(t, s, "stop-idle", "--now", "--idle-exit=1s")
	a.awaitIdle()
	a.MustSystemctl("stop", a.Name)
	a.checkStopped()
}

// testHeldConnection keeps a connection open without using it, and expects nothing to happen for
// three times as long as the app must be idle to go to sleep.
func testHeldConnection(t *testing.T, s *apps.System) {
	const idle = 2 * time.Second
	a := newApp(t, s, "held", "--now", "--idle-exit=2s")
	held := a.Hold(1)[0]
	ctx, cancel := context.WithTimeout(t.Context(), 3*idle)
	defer cancel()
	p, err := a.WaitFor(ctx, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] != "active" })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shim with an open connection: %s, %v", p, err)
	}
	if _, err := held.Get("/"); err != nil {
		t.Errorf("request on the connection that was held: %v", err)
	}
	held.Close()
	a.awaitIdle()
}
