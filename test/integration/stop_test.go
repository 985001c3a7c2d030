//go:build integration

package integration

import (
	"context"
	"errors"
	"maps"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testRestartInstance restarts one instance while it has requests in flight and clients with
// connections that they keep: these leave when the program says so, which it does when it is told
// to stop.
func testRestartInstance(t *testing.T, s *apps.System) {
	a := startApp(t, s, "restart-one")
	before := a.pids(a.N)
	loads := []*rig.Load{
		a.load(rig.LoadOptions{}),
		a.load(rig.LoadOptions{KeepAlive: true}),
		a.load(rig.LoadOptions{Path: "/slow?ms=400"}),
	}
	for range 2 {
		for _, l := range loads {
			a.AwaitOK(l, 20)
		}
		a.MustSystemctl("restart", a.Instance(2))
		a.AwaitUp(a.N)
	}
	for _, l := range loads {
		a.AwaitOK(l, 20)
		r := l.Stop()
		if a.Lossless(r); r.Stale > 0 {
			t.Errorf("connections were closed under a request: %s", r)
		}
	}
	after := a.pids(a.N)
	if after[2] == before[2] {
		t.Error("the instance was not restarted")
	}
	before[2] = after[2]
	if !maps.Equal(before, after) {
		t.Errorf("processes = %v, want %v: no other is new", after, before)
	}
	a.evenly(a.Addr(), after)
}

// testRestartApp restarts shim and instances under load: all are new, on the same sockets.
func testRestartApp(t *testing.T, s *apps.System) {
	a := startApp(t, s, "restart-all")
	before, shimBefore, inodes := a.pids(a.N), a.PID(a.Shim()), a.inodes()
	loads := []*rig.Load{
		a.load(rig.LoadOptions{}),
		a.load(rig.LoadOptions{KeepAlive: true}),
		a.load(rig.LoadOptions{Path: "/slow?ms=400"}),
	}
	for _, l := range loads {
		a.AwaitOK(l, 20)
	}
	a.MustSystemctl("restart", a.Name)
	a.AwaitUp(a.N)
	for _, l := range loads {
		a.AwaitOK(l, 20)
		r := l.Stop()
		if a.Lossless(r); r.Stale > 0 {
			t.Errorf("connections were closed under a request: %s", r)
		}
	}
	after := a.pids(a.N)
	for i, pid := range after {
		if pid == before[i] {
			t.Errorf("%s was not restarted", a.Instance(i))
		}
	}
	if a.PID(a.Shim()) == shimBefore {
		t.Error("the shim was not restarted")
	}
	if now := a.inodes(); now != inodes {
		t.Errorf("listening sockets = %s, before the restart %s", now, inodes)
	}
	a.evenly(a.Addr(), after)
}

// testStop stops an app that has a request in flight: that one is answered, new connections are
// refused meanwhile, and nothing starts the app again.
func testStop(t *testing.T, s *apps.System) {
	a := startApp(t, s, "halted")
	held := a.Hold(1)[0]
	if err := held.Send("/slow?ms=3000"); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { // ends with the answer or the deadline of the connection
		_, err := held.Receive()
		answered <- err
	}()
	stopped := make(chan error, 1)
	go func() { stopped <- a.Systemctl(t.Context(), "stop", a.Name) }()
	a.awaitRefused()
	select {
	case err := <-answered:
		t.Errorf("the request in flight ended before the port was closed, %v", err)
	default:
		if err := <-answered; err != nil {
			t.Errorf("request in flight at the stop: %v", err)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	a.checkStopped()
}

// testStopStart starts an app as soon as its stop returns, when its sockets are still being
// stopped.
func testStopStart(t *testing.T, s *apps.System) {
	a := startApp(t, s, "stop-start")
	for range 1 + times(4) {
		a.MustSystemctl("stop", a.Name)
		a.MustSystemctl("start", a.Name)
		a.AwaitUp(a.N)
	}
	a.evenly(a.Addr(), a.pids(a.N))
}

// testStopWhileStarting stops an app that is not ready yet.
func testStopWhileStarting(t *testing.T, s *apps.System) {
	a := newApp(t, s, "stop-early", "--property=ExecStartPre=/bin/sleep 600", "--property=TimeoutStartSec=infinity")
	a.MustSystemctl("start", "--no-block", a.Name)
	for i := range a.N {
		a.awaitSub(a.Instance(i+1), "start-pre")
	}
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["StatusText"] != "" })
	a.MustSystemctl("stop", a.Name)
	a.checkStopped()
}

// testStopAfterCrash stops an app whose shim has just been killed, before and while PID 1 starts it
// again.
func testStopAfterCrash(t *testing.T, s *apps.System) {
	for _, state := range []string{"auto-restart", "start", "any"} {
		t.Run(state, func(t *testing.T) {
			a := startApp(t, s, "stop-crashed")
			switch state {
			case "auto-restart":
				a.DropIn(a.Shim(), "[Service]\nRestartSec=1h\n")
			case "start":
				a.DropIn(a.Shim(), "[Service]\nExecStartPre=/bin/sleep 600\nTimeoutStartSec=infinity\n")
				state = "start-pre"
			}
			a.Signal(a.Shim(), "KILL")
			if state != "any" {
				a.awaitSub(a.Shim(), state)
			}
			a.MustSystemctl("stop", a.Name)
			a.checkStopped()
		})
	}
}

// testStopWhileFailing stops an app that never gets ready, while PID 1 waits before it starts the
// shim anew. A connection waits at the port, which PID 1 takes for a reason to start it at once.
func testStopWhileFailing(t *testing.T, s *apps.System) {
	a := newApp(t, s, "stop-failing", "--start-timeout=1s", "--", "/bin/false")
	a.DropIn(a.Shim(), "[Service]\nRestartSec=1h\n")
	a.MustSystemctl("start", a.Name+".socket")
	conn, err := a.DialContext(t.Context(), "tcp", a.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a.awaitSub(a.Shim(), "auto-restart")
	a.MustSystemctl("stop", a.Name)
	a.checkStopped()
}

// awaitRefused returns when a connection was refused. One that was waiting as the port was closed
// is reset.
func (a *testApp) awaitRefused() {
	a.T.Helper()
	for deadline := time.Now().Add(apps.Limit); time.Now().Before(deadline); {
		conn, err := a.DialContext(a.T.Context(), "tcp", a.Addr())
		switch {
		case err == nil:
			conn.Close()
		case errors.Is(err, syscall.ECONNREFUSED):
			return
		case !errors.Is(err, syscall.ECONNRESET):
			a.T.Fatal(err)
		}
	}
	a.T.Fatal("connections are not refused")
}

// checkStopped checks that nothing of the app is left, and that a connection does not bring it
// back.
func (a *testApp) checkStopped() {
	a.T.Helper()
	ctx, cancel := context.WithTimeout(a.T.Context(), apps.Limit)
	defer cancel()
	// The sockets' stop jobs are not awaited by "systemctl stop APP": they are ordered after it.
	sockets := []string{a.Name + ".socket", a.Name + "-control.socket", a.Name + "-diag.socket"}
	for i := range a.N {
		sockets = append(sockets, a.Socket(i+1))
	}
	for _, unit := range sockets {
		if err := a.WaitActive(ctx, unit, "inactive"); err != nil {
			a.T.Error(err)
		}
	}
	for range 2 { // the second time after a connection
		states := a.MustExec(a.T, "systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,deactivating,reloading",
			a.Name+".*", a.Name+"[@-]*")
		if states != "" {
			a.T.Errorf("units of a stopped app:\n%s", states)
		}
		if inodes := a.inodes(); inodes != "" {
			a.T.Errorf("listening sockets of a stopped app: %s", inodes)
		}
		conn, err := a.DialContext(ctx, "tcp", a.Addr())
		if !errors.Is(err, syscall.ECONNREFUSED) {
			a.T.Errorf("connect to a stopped app = %v, want connection refused", err)
			if err == nil {
				conn.Close()
			}
		}
	}
	if text, err := a.Journal(ctx, a.Shim()); err != nil || strings.Contains(text, "Failed with result 'timeout'") {
		a.T.Errorf("journal = %q, %v; want a stop without time-outs", text, err)
	}
}
