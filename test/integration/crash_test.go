//go:build integration

package integration

import (
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// testKillShim kills the shim three times under load: nobody notices, and the next shim takes over what it left in the
// FD store.
func testKillShim(t *testing.T, s *system) {
	a := startApp(t, s, "kill-shim")
	pids, inodes, stored := a.pids(4), a.inodes(), a.MustShow(t, a.shim(), "NFileDescriptorStore")
	if stored == "0" {
		t.Error("the FD store is empty")
	}
	load := a.load(rig.LoadOptions{})
	for range 3 {
		a.awaitOK(load, 300)
		pid := a.pid(a.shim())
		a.MustExec(t, "kill", "-s", "KILL", pid)
		a.awaitNew(a.shim(), pid)
		a.awaitUp(4)
	}
	a.awaitOK(load, 300)
	a.lossless(load.Stop())
	if now := a.pids(4); !maps.Equal(now, pids) {
		t.Errorf("processes = %v, before the kills %v", now, pids)
	}
	if now := a.inodes(); now != inodes {
		t.Errorf("listening sockets = %s, before the kills %s", now, inodes)
	}
	if now := a.MustShow(t, a.shim(), "NFileDescriptorStore"); now != stored {
		t.Errorf("the FD store has %s descriptors, before the kills %s", now, stored)
	}
	a.evenly(a.addr(), pids)
}

// testSteerWithoutShim connects while no shim runs: the kernel spreads on.
func testSteerWithoutShim(t *testing.T, s *system) {
	a := startApp(t, s, "no-shim")
	pids := a.pids(4)
	a.dropIn(a.shim(), "[Service]\nRestartSec=1h\n")
	a.signal(a.shim(), "KILL")
	a.awaitSub(a.shim(), "auto-restart")
	a.evenly(a.addr(), pids)
	if got := a.MustShow(t, a.shim(), "SubState"); got != "auto-restart" {
		t.Errorf("the shim is %s after the connections, want none to have started it", got)
	}
	a.systemctl("restart", a.name) // a start would wait for RestartSec= on systemd 252
	a.awaitUp(4)
	a.evenly(a.addr(), pids)
}

// testKillInstance kills an instance under load. What it was working on is lost; what it had not accepted is not.
func testKillInstance(t *testing.T, s *system) {
	a := startApp(t, s, "kill-instance")
	before := a.pids(4)
	const clients = 8
	load := a.load(rig.LoadOptions{Clients: clients})
	a.awaitOK(load, 300)
	a.MustExec(t, "kill", "-s", "KILL", before[2])
	a.awaitNew(a.instance(2), before[2])
	a.awaitUp(4)
	a.awaitOK(load, 300)
	a.lostOnly(clients, load.Stop())
	after := a.pids(4)
	before[2] = after[2]
	if !maps.Equal(before, after) {
		t.Errorf("processes = %v, want %v: no other than the one killed is new", after, before)
	}
	a.evenly(a.addr(), after)
}

// lostOnly fails the test if more was lost than the requests which a process was working on when it was killed: one per
// client at most, and none refused.
func (a *testApp) lostOnly(clients int, r rig.Result) {
	a.t.Helper()
	if lost := r.Failures[rig.EOF].Count + r.Failures[rig.Reset].Count; r.Failed() > lost || lost > clients || r.OK == 0 {
		a.t.Errorf("load: %s; want at most %d failures, of requests that the instance was working on", r, clients)
	}
}

// testCrashLoop breaks the program of one instance under load: it is restarted ever more slowly, and nobody notices.
func testCrashLoop(t *testing.T, s *system) {
	a := startApp(t, s, "crash-loop")
	before := a.pids(4)
	load := a.load(rig.LoadOptions{})
	undo := a.dropIn(a.instance(2), "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit 3'\n")
	began := time.Now()
	a.systemctl("restart", "--no-block", a.instance(2))
	const restarts = 3
	a.MustWait(t, limit, a.instance(2), func(p rig.Properties) bool {
		n, err := strconv.Atoi(p["NRestarts"])
		return err == nil && n >= restarts
	})
	// RestartSec=200ms is between two starts at least, and on systemd 254 and later it grows.
	if took := time.Since(began); took < restarts*200*time.Millisecond {
		t.Errorf("%d restarts in %s: no back-off", restarts, took)
	}
	a.awaitOK(load, 300)
	a.checkSockets()
	undo()
	a.awaitUp(4)
	a.lossless(load.Stop())
	after := a.pids(4)
	before[2] = after[2]
	if !maps.Equal(before, after) {
		t.Errorf("processes = %v, want %v: no other than the broken one is new", after, before)
	}
	a.evenly(a.addr(), after)
}

// testAllDown stops all instances under load: connections wait, and are served when one is back.
func testAllDown(t *testing.T, s *system) {
	a := startApp(t, s, "all-down")
	const clients = 8
	load := a.load(rig.LoadOptions{Clients: clients})
	a.awaitOK(load, 300)
	a.systemctl("stop", a.instance(1), a.instance(2), a.instance(3), a.instance(4))
	a.awaitStatus("0/4 instances up")
	a.awaitWaiting(clients)
	a.systemctl("start", a.instance(3))
	a.awaitOK(load, 300)
	a.systemctl("start", a.instance(1), a.instance(2), a.instance(4))
	a.awaitUp(4)
	a.awaitOK(load, 300)
	a.lossless(load.Stop())
	a.evenly(a.addr(), a.pids(4))
}

// testStuck freezes one instance under load: what waits for it goes to others, and when it wakes up it takes part again.
func testStuck(t *testing.T, s *system) {
	a := startApp(t, s, "stuck")
	load := a.load(rig.LoadOptions{Clients: 16})
	a.awaitOK(load, 300)
	a.signal(a.instance(2), "STOP")
	a.awaitStatus("stuck@2 stuck")
	a.awaitOK(load, 1000)
	a.signal(a.instance(2), "CONT")
	a.awaitUp(4)
	a.awaitOK(load, 300)
	a.lossless(load.Stop())
	a.evenly(a.addr(), a.pids(4))
}

// testRescue lets two instances end and start as fast as PID 1 can, so that their queues are moved away time and again
// while PID 1 watches the same sockets: it must never take that for their end.
func testRescue(t *testing.T, s *system) {
	a := newApp(t, s, "moved")
	// Up for a moment, in which connections come that it does not accept. PID 1 runs ExecStop= after a success only.
	for i, program := range map[int]string{1: "/bin/sleep 0.02", 2: "/bin/sh -c 'sleep 0.02; exit 1'"} {
		a.dropIn(a.instance(i), "[Service]\nType=exec\nExecStart=\nExecStart="+program+"\nExecStartPost=\nExecStopPost=\nRestartSec=0\nRestartSteps=0\n")
	}
	a.systemctl("enable", "--now", a.name)
	a.lossless(a.load(rig.LoadOptions{Clients: 16, Rate: 300, Duration: 15 * time.Second}).Wait())
	var moved uint64
	for _, address := range a.status().Addresses {
		moved += address.Migrated
	}
	t.Logf("%d connections were moved", moved)
	if moved == 0 {
		t.Error("no connection was moved: nothing was tried")
	}
	a.checkSockets()
}

// checkSockets checks that PID 1 has ended no socket of the app.
func (a *testApp) checkSockets() {
	a.t.Helper()
	sockets := []string{a.name + ".socket", a.name + "-control.socket", a.name + "-diag.socket"}
	for i := range 4 {
		sockets = append(sockets, a.socket(i+1))
	}
	for _, unit := range sockets {
		if got := a.MustShow(a.t, unit, "ActiveState"); got != "active" {
			a.t.Errorf("%s is %s", unit, got)
		}
	}
}
