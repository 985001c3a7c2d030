//go:build integration

package rollout

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// checkRenewed checks that no process of before runs.
func checkRenewed(a *apps.App, what string, before map[int]string) {
	a.T.Helper()
	for number, pid := range a.PIDs() {
		if pid == before[number] || pid == "0" {
			a.T.Errorf("%s: instance %d is process %s, before %s", what, number, pid, before[number])
		}
	}
}

// testRestartInReload restarts an app in the middle of a reload. PID 1 leaves out ExecStop= then.
func testRestartInReload(t *testing.T, s *apps.System) {
	a := start(t, s, "overtaken", append(crude, "--soak", "1s", slowly)...)
	load := a.Load(rig.LoadOptions{Rate: 50})
	for _, words := range []string{"trying the new code", inTheMiddle(a)} {
		land := fly(a, a.Hold(2*a.N), "/slow?ms=3000")
		before := a.PIDs()
		r := startReload(a, words)
		a.MustSystemctl("restart", a.Name)
		checkRenewed(a, "restart at "+words, before)
		t.Logf("systemctl reload: %v", <-r.done) // PID 1 has made one job of both
		land()
		checkNoExtra(a)
		healthyReload(a)
	}
	a.Lossless(load.Stop())
}

// testRestartFails restarts an app of which one instance is broken: the restart says so, and the
// others are new.
func testRestartFails(t *testing.T, s *apps.System) {
	a := start(t, s, "limping", "--start-timeout", "5s")
	before := a.PIDs()
	undo := a.DropIn(a.Instance(2), "[Service]\nExecStart=\nExecStart=/bin/false\n")
	if err := a.Systemctl(t.Context(), "restart", a.Name); err == nil {
		t.Error("the restart has succeeded")
	}
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool {
		return p["ActiveState"] == "active" && strings.HasPrefix(p["StatusText"], fmt.Sprintf("%d/%d instances up", a.N-1, a.N))
	})
	for i, pid := range before {
		if i != 2 && a.PID(a.Instance(i)) == pid {
			t.Errorf("instance %d is not new", i)
		}
	}
	undo()
	a.MustSystemctl("restart", a.Name)
	checkRenewed(a, "restart of what was broken", before)
	a.AwaitUp(a.N)
}

// testRestartAfterCrash restarts an app whose shim has crashed and waits for its restart by PID 1.
func testRestartAfterCrash(t *testing.T, s *apps.System) {
	a := start(t, s, "fallen")
	undo := a.DropIn(a.Shim(), "[Service]\nRestartSec=1h\n")
	before := a.PIDs()
	a.Signal(a.Shim(), "KILL")
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["SubState"] == "auto-restart" })
	a.MustSystemctl("restart", a.Name)
	checkRenewed(a, "restart after a crash", before)
	a.AwaitUp(a.N)

	// A restart by PID 1 renews nobody.
	undo()
	before = a.PIDs()
	pid := a.PID(a.Shim())
	a.Signal(a.Shim(), "KILL")
	a.AwaitNew(a.Shim(), pid)
	a.AwaitUp(a.N)
	for number, pid := range a.PIDs() {
		if pid != before[number] {
			t.Errorf("a crash of the shim has renewed instance %d", number)
		}
	}
}

// testKillShimInRestart kills the shim while the instances of an app that is restarted drain.
func testKillShimInRestart(t *testing.T, s *apps.System) {
	a := start(t, s, "unlucky", crude...)
	load := a.Load(rig.LoadOptions{Rate: 50})
	land := fly(a, a.Hold(2*a.N), "/slow?ms=6000")
	before, shim := a.PIDs(), a.PID(a.Shim())
	restarted := make(chan error, 1)
	go func() { restarted <- a.Systemctl(t.Context(), "restart", a.Name) }()
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["SubState"] == "start-post" && p["MainPID"] != shim })
	a.MustWait(t, apps.Limit, a.Instance(1), func(p rig.Properties) bool { return p["SubState"] == "stop" })
	a.MustExec(t, "kill", "-s", "KILL", a.PID(a.Shim()))
	land()
	t.Logf("systemctl restart: %v", <-restarted)
	a.AwaitUp(a.N)
	checkRenewed(a, "restart whose shim was killed", before)
	a.Lossless(load.Stop())
	// What waits for the drains must not keep PID 1 from starting the shim that they wait for.
	if log := a.Log(a.Shim()); strings.Contains(log, "Watchdog timeout") || !strings.Contains(log, "the balancer has ended while it started") {
		t.Errorf("the next shim was started late:\n%s", log)
	}
}

// asks is a program in Python whose listener must not block.
const asks = `
import asyncio, socket
async def answer(r, w):
    w.write(b"HTTP/1.0 200 OK\r\n\r\n")
    w.close()
async def main():
    await (await asyncio.start_server(answer, sock=socket.socket(fileno=3))).serve_forever()
asyncio.run(main())
`

// testJoin starts an app: one command gives all listeners to the shim, and an instance whose listener
// comes later, or anew, has one of its own. None runs beside the instances, as PID 1 would change the
// flags of their listeners.
func testJoin(t *testing.T, s *apps.System) {
	a := start(t, s, "joined", "--instances=2", "--start-timeout=10s", "--", "/usr/bin/python3", "-c", asks)
	all := a.Name + "-join.service"
	one := func(i int) string { return fmt.Sprintf("%s-join@%d.service", a.Name, i) }
	check := func(when, joined string, own ...int) {
		t.Helper()
		if got := strings.Join(strings.Fields(a.MustExec(t, "ls", "/run/unitgen/"+a.Name+"/joined")), " "); got != joined {
			t.Errorf("%s: %s have joined, want %s", when, got, joined)
		}
		for i := 1; i <= a.N+1; i++ {
			if got, want := a.MustShow(t, one(i), "ActiveState") == "active", slices.Contains(own, i); got != want {
				t.Errorf("%s: instance %d has joined by its own unit: %v, want %v", when, i, got, want)
			}
		}
	}
	flags := func() string {
		return a.MustExec(t, "grep", "-h", "flags", "/proc/"+a.PID(a.Instance(1))+"/fdinfo/3", "/proc/"+a.PID(a.Instance(2))+"/fdinfo/3")
	}
	// PID 1 stops the unit that joins all by itself, after the last listener. A start before that would not run it again.
	stop := func() {
		a.MustSystemctl("stop", a.Name)
		a.MustWait(t, apps.Limit, all, func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	}
	check("start", "1 2")

	before := flags()
	if word, _, _ := strings.Cut(strings.TrimPrefix(before, "flags:\t"), "\n"); len(word) < 4 || (word[len(word)-4]-'0')&4 == 0 {
		t.Fatalf("the program's listener blocks: flags %s, want octal 4000 among them", word)
	}
	for _, unit := range []string{all, one(1)} {
		if err := a.Systemctl(t.Context(), "restart", unit); err == nil {
			t.Errorf("a restart of %s succeeds", unit)
		}
	}
	a.MustSystemctl("start", all, one(1))
	check("a start by hand", "1 2")
	a.MustSystemctl("start", a.Instance(3))
	check("an instance more", "1 2 3", 3)
	a.MustSystemctl("stop", a.Socket(2)) // PID 1 forgets that it has joined
	a.MustWait(t, apps.Limit, a.Socket(2), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	check("a listener less", "1 3", 3)
	a.MustSystemctl("start", a.Instance(2))
	check("the listener anew", "1 2 3", 2, 3)
	a.AwaitUp(3)
	undo := a.DropIn(a.Socket(3), "[Socket]\nExecStartPost=/bin/true\n") // then PID 1 makes the directory itself
	a.MustSystemctl("stop", a.Socket(3))
	a.MustSystemctl("start", a.Instance(3))
	check("a command of the administrator's", "1 2 3", 2, 3)
	undo()
	a.MustSystemctl("stop", a.Socket(3))
	a.MustExec(t, "mkdir", "/run/unitgen/"+a.Name+"/joined/3")
	a.MustWriteFile(t, "/run/unitgen/"+a.Name+"/joined/3/noted", "", 0o600)
	if err := a.Systemctl(t.Context(), "start", a.Instance(3)); err == nil {
		t.Error("an instance that has not joined has started")
	}
	a.AwaitUp(3) // the next try has joined
	check("a note that was wrong", "1 2 3", 2, 3)

	// The listener of an instance that was disabled is opened, and closes.
	a.MustSystemctl("disable", a.Instance(2))
	stop()
	a.MustSystemctl("start", a.Name)
	a.AwaitUp(1)
	check("an instance less", "1")
	a.MustSystemctl("enable", "--now", a.Instance(2))
	a.AwaitUp(2)
	check("and again", "1 2", 2)

	// If the command for all has failed, each has its own.
	stop()
	undo = a.DropIn(all, "[Service]\nExecStart=\nExecStart=/bin/false\n")
	a.MustSystemctl("start", a.Name)
	a.AwaitUp(a.N)
	check("a start in which it failed", "1 2", 1, 2)
	undo()
	a.MustSystemctl("start", all)
	if got := a.MustShow(t, all, "ConditionResult"); got != "no" {
		t.Errorf("the command for all has run beside the instances: condition %s", got)
	}
	if after := flags(); after != before {
		t.Errorf("flags of the listeners are\n%sthey were\n%s", after, before)
	}
}
