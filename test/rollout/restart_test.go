//go:build integration

package rollout

import (
	"fmt"
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

// testJoinByHand tries to restart the unit that gave a listener to the shim, which would change the
// listener's flags under the program.
func testJoinByHand(t *testing.T, s *apps.System) {
	a := start(t, s, "joined")
	if err := a.Systemctl(t.Context(), "restart", a.Name+"-join@1.service"); err == nil {
		t.Error("a restart of the join unit succeeds")
	}
	before := a.PIDs()
	a.MustSystemctl("restart", a.Instance(1))
	if a.PID(a.Instance(1)) == before[1] {
		t.Error("the instance is not new")
	}
	a.MustSystemctl("stop", a.Socket(2)) // takes its join unit along
	a.MustWait(t, apps.Limit, a.Name+"-join@2.service", func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	a.MustSystemctl("start", a.Instance(2))
	a.AwaitUp(a.N)
}
