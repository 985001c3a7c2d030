//go:build integration

package integration

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testKillShim kills the shim three times under load: nobody notices, and the next shim takes over
// what it left in the FD store.
func testKillShim(t *testing.T, s *apps.System) {
	a := startApp(t, s, "kill-shim")
	pids, inodes, stored := a.pids(a.N), a.inodes(), a.MustShow(t, a.Shim(), "NFileDescriptorStore")
	if stored == "0" {
		t.Error("the FD store is empty")
	}
	load := a.load(rig.LoadOptions{})
	for range 1 + times(2) {
		a.AwaitOK(load, 300)
		pid := a.PID(a.Shim())
		a.MustExec(t, "kill", "-s", "KILL", pid)
		a.AwaitNew(a.Shim(), pid)
		a.AwaitUp(a.N)
	}
	a.AwaitOK(load, 300)
	a.Lossless(load.Stop())
	if now := a.pids(a.N); !maps.Equal(now, pids) {
		t.Errorf("processes = %v, before the kills %v", now, pids)
	}
	if now := a.inodes(); now != inodes {
		t.Errorf("listening sockets = %s, before the kills %s", now, inodes)
	}
	if now := a.MustShow(t, a.Shim(), "NFileDescriptorStore"); now != stored {
		t.Errorf("the FD store has %s descriptors, before the kills %s", now, stored)
	}
	a.evenly(a.Addr(), pids)
}

// testSteerWithoutShim connects while no shim runs: the kernel spreads on.
func testSteerWithoutShim(t *testing.T, s *apps.System) {
	a := startApp(t, s, "no-shim")
	pids := a.pids(a.N)
	a.DropIn(a.Shim(), "[Service]\nRestartSec=1h\n")
	a.Signal(a.Shim(), "KILL")
	a.awaitSub(a.Shim(), "auto-restart")
	a.evenly(a.Addr(), pids)
	if got := a.MustShow(t, a.Shim(), "SubState"); got != "auto-restart" {
		t.Errorf("the shim is %s after the connections, want none to have started it", got)
	}
	a.MustSystemctl("restart", a.Name) // a start would wait for RestartSec= on systemd 252
	a.AwaitUp(a.N)
	a.evenly(a.Addr(), a.pids(a.N))
}

// testKillInstance kills an instance under load. What it was working on is lost; what it had not
// accepted is not.
func testKillInstance(t *testing.T, s *apps.System) {
	a := startApp(t, s, "kill-instance")
	before := a.pids(a.N)
	const clients = 8
	load := a.load(rig.LoadOptions{Clients: clients})
	a.AwaitOK(load, 300)
	a.MustExec(t, "kill", "-s", "KILL", before[2])
	a.AwaitNew(a.Instance(2), before[2])
	a.AwaitUp(a.N)
	a.AwaitOK(load, 300)
	a.lostOnly(clients, load.Stop())
	after := a.pids(a.N)
	before[2] = after[2]
	if !maps.Equal(before, after) {
		t.Errorf("processes = %v, want %v: no other than the one killed is new", after, before)
	}
	a.evenly(a.Addr(), after)
}

// lostOnly fails the test if more was lost than the requests which a process was working on when it
// was killed: one per client at most, and none refused.
func (a *testApp) lostOnly(clients int, r rig.Result) {
	a.T.Helper()
	if !r.LostAtMost(clients) {
		a.T.Errorf("load: %s; want at most %d failures, of requests that the instance was working on", r, clients)
	}
}

// testCrashLoop breaks the program of one instance under load: it is restarted ever more slowly,
// and nobody notices.
func testCrashLoop(t *testing.T, s *apps.System) {
	a := startApp(t, s, "crash-loop")
	before := a.pids(a.N)
	load := a.load(rig.LoadOptions{})
	undo := a.DropIn(a.Instance(2), "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit 3'\n")
	began := time.Now()
	a.MustSystemctl("restart", "--no-block", a.Instance(2))
	const restarts = 3
	a.MustWait(t, apps.Limit, a.Instance(2), func(p rig.Properties) bool {
		n, err := strconv.Atoi(p["NRestarts"])
		return err == nil && n >= restarts
	})
	// RestartSec=200ms is between two starts at least, and on systemd 254 and later it grows.
	if took := time.Since(began); took < restarts*200*time.Millisecond {
		t.Errorf("%d restarts in %s: no back-off", restarts, took)
	}
	a.AwaitOK(load, 300)
	a.checkSockets()
	undo()
	a.AwaitUp(a.N)
	a.Lossless(load.Stop())
	after := a.pids(a.N)
	before[2] = after[2]
	if !maps.Equal(before, after) {
		t.Errorf("processes = %v, want %v: no other than the broken one is new", after, before)
	}
	a.evenly(a.Addr(), after)
}

// testAllDown stops all instances under load: connections wait, and are served when one is back.
func testAllDown(t *testing.T, s *apps.System) {
	a := startApp(t, s, "all-down")
	const clients = 8
	load := a.load(rig.LoadOptions{Clients: clients})
	a.AwaitOK(load, 300)
	a.MustSystemctl(append([]string{"stop"}, a.instances()...)...)
	a.AwaitStatus(fmt.Sprintf("0/%d instances up", a.N))
	a.awaitWaiting(clients)
	a.MustSystemctl("start", a.Instance(2))
	a.AwaitOK(load, 300)
	a.MustSystemctl(append([]string{"start"}, a.instances()...)...)
	a.AwaitUp(a.N)
	a.AwaitOK(load, 300)
	a.Lossless(load.Stop())
	a.evenly(a.Addr(), a.pids(a.N))
}

// testKillDraining kills an instance in the middle of a drain, with connections that it has not
// accepted: they do not wait for it until the drain's time is up.
func testKillDraining(t *testing.T, s *apps.System) {
	a := startApp(t, s, "kill-draining")
	others := slices.DeleteFunc(a.instances(), func(unit string) bool { return unit == a.Instance(2) })
	a.MustSystemctl(append([]string{"stop"}, others...)...)
	a.AwaitStatus(fmt.Sprintf("1/%d instances up", a.N))
	a.Signal(a.Instance(2), "STOP")
	const clients = 8
	load := a.load(rig.LoadOptions{Requests: clients, Clients: clients})
	a.awaitShim("connections that wait at the instance", func(s control.Status) bool {
		return slices.ContainsFunc(s.Instances, func(in control.InstanceStatus) bool { return in.Queued == clients })
	})
	a.MustSystemctl("stop", "--no-block", a.Instance(2))
	a.AwaitStatus(a.Name + "@2 draining")
	a.Signal(a.Instance(2), "KILL")
	a.MustSystemctl("stop", a.Instance(2)) // waits for the job that is there
	if log := a.Log(a.Shim()); strings.Contains(log, "timed_out=true") {
		t.Errorf("the drain went on without its program:\n%s", log)
	}
	a.MustSystemctl(append([]string{"start"}, a.instances()...)...)
	a.Lossless(load.Wait())
}

// testStuck freezes one instance under load: what waits for it goes to others, and when it wakes up
// it takes part again.
func testStuck(t *testing.T, s *apps.System) {
	a := startApp(t, s, "stuck")
	load := a.load(rig.LoadOptions{Clients: 16})
	a.AwaitOK(load, 300)
	a.Signal(a.Instance(2), "STOP")
	a.AwaitStatus("stuck@2 stuck")
	a.AwaitOK(load, 1000)
	a.Signal(a.Instance(2), "CONT")
	a.AwaitUp(a.N)
	a.AwaitOK(load, 300)
	a.Lossless(load.Stop())
	a.evenly(a.Addr(), a.pids(a.N))
}

// testAllStuck freezes all instances: none can be taken off the ring, and the status line says what
// is wrong.
func testAllStuck(t *testing.T, s *apps.System) {
	a := startApp(t, s, "frozen")
	for _, unit := range a.instances() {
		a.Signal(unit, "STOP")
	}
	load := a.load(rig.LoadOptions{Requests: 16, Clients: 16})
	a.AwaitStatus(fmt.Sprintf("%d/%[1]d instances up, none of which accepts", a.N))
	for _, unit := range a.instances() {
		a.Signal(unit, "CONT")
	}
	a.Lossless(load.Wait())
	a.AwaitUp(a.N)
}

// testRescue lets two instances end and start as fast as PID 1 can, so that their queues are moved
// away time and again while PID 1 watches the same sockets in between: it must never take that for
// their end.
func testRescue(t *testing.T, s *apps.System) {
	a := newApp(t, s, "moved", "--instances=3")
	// Up for a moment, in which connections come that it does not accept. PID 1 runs ExecStop=
	// after a success only.
	for i, program := range map[int]string{1: "/bin/sleep 0.02", 2: "/bin/sh -c 'sleep 0.02; exit 1'"} {
		a.DropIn(a.Instance(i), "[Service]\nType=exec\nExecStart=\nExecStart="+program+"\nExecStartPost=\nExecStopPost=\nExecStopPost=/bin/sleep 0.05\nRestartSec=0\n")
	}
	a.MustSystemctl("enable", "--now", a.Name)
	const want = 50
	began, least := time.Now(), time.Duration(0)
	if rig.All() {
		least = 15 * time.Second
	}
	load := a.load(rig.LoadOptions{Clients: 16, Rate: 300})
	for ; ; a.AwaitOK(load, 100) {
		var moved uint64
		for _, address := range a.Status().Addresses {
			moved += address.Migrated
		}
		took := time.Since(began)
		if moved >= want && took >= least {
			break
		}
		if took > apps.Limit {
			t.Fatalf("%d connections were moved, want %d", moved, want)
		}
	}
	a.Lossless(load.Stop())
	a.checkSockets()
}

// checkSockets checks that PID 1 has ended no socket of the app.
func (a *testApp) checkSockets() {
	a.T.Helper()
	sockets := []string{a.Name + ".socket", a.Name + "-control.socket", a.Name + "-diag.socket"}
	for i := range a.N {
		sockets = append(sockets, a.Socket(i+1))
	}
	for _, unit := range sockets {
		if got := a.MustShow(a.T, unit, "ActiveState"); got != "active" {
			a.T.Errorf("%s is %s", unit, got)
		}
	}
}
