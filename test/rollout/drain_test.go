//go:build integration

package rollout

import (
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// crude makes a program end at its stop signal, at once and in the middle of what it does.
var crude = []string{"-p", "KillSignal=SIGKILL"}

// testCrude drains programs that end at once: nothing in flight is lost by a restart, a reload, or
// when the app gets smaller.
func testCrude(t *testing.T, s *apps.System) {
	a := start(t, s, "crude", append(crude, "--soak", "1s")...)
	load := a.Load(rig.LoadOptions{Rate: 100})
	for _, tt := range []struct {
		name string
		run  func()
	}{
		{"restart", func() { a.MustSystemctl("restart", a.Instance(2)) }},
		{"reload", a.Reload},
		{"scale down", func() { a.Unitgen("--instances", "-1") }},
	} {
		land := fly(a, a.Hold(2*a.N), "/slow?ms=3000")
		began := time.Now()
		tt.run()
		t.Logf("%s took %s", tt.name, time.Since(began).Round(time.Millisecond))
		land()
	}
	a.N--
	a.AwaitUp(a.N)
	a.MustWait(t, apps.Limit, a.Socket(a.N+1), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	a.Lossless(load.Stop())
	a.Evenly()
	if log := a.Log(a.Shim()); strings.Contains(log, "timed_out=true") {
		t.Errorf("a drain went on to its time-out:\n%s", log)
	}
}

// testIdleKeepAlive restarts an instance that has idle connections: they do not hold it.
func testIdleKeepAlive(t *testing.T, s *apps.System) {
	a := start(t, s, "idle", crude...)
	a.Hold(10 * a.N)
	began := time.Now()
	a.MustSystemctl("restart", a.Instance(2))
	t.Logf("restart with 10 idle connections took %s", time.Since(began).Round(time.Millisecond))
	log := a.Log(a.Shim())
	if !strings.Contains(log, "instance drained") || strings.Contains(log, "timed_out=true") || !strings.Contains(log, "connections=10") {
		t.Errorf("no drain of 10 connections that ended by itself:\n%s", log)
	}
}

// testBusyHolds restarts an instance with a request in flight: it ends after that, or at the drain
// time-out.
func testBusyHolds(t *testing.T, s *apps.System) {
	a := start(t, s, "busy", crude...)
	held := a.Open(a.N) // one at each instance
	send(a, held, "/slow?ms=4000")
	began := time.Now()
	a.MustSystemctl("restart", a.Instance(2))
	t.Logf("restart with a request of 4 s in flight took %s", time.Since(began).Round(time.Millisecond))
	if got := answered(held); got["2"] != 1 || len(got) != a.N {
		t.Errorf("answers by instance = %v, want one of each", got)
	}
	if log := a.Log(a.Shim()); !strings.Contains(log, "instance drained") || strings.Contains(log, "timed_out=true") {
		t.Errorf("no drain that ended by itself:\n%s", log)
	}

	a.Unitgen("--drain-timeout", "2s")
	a.Reload()
	a.AwaitUp(a.N)
	for _, h := range a.Hold(a.N) {
		if h.Instance != "2" {
			continue
		}
		send(a, []*apps.Held{h}, "/slow?ms=600000")
		began = time.Now()
		a.MustSystemctl("restart", a.Instance(2))
		t.Logf("restart with an endless request and a drain time-out of 2 s took %s", time.Since(began).Round(time.Millisecond))
		if _, err := h.Receive(); err == nil {
			t.Error("a request of ten minutes was answered")
		}
	}
	if log := a.Log(a.Shim()); !strings.Contains(log, "timed_out=true") {
		t.Errorf("no drain that ended by its time-out:\n%s", log)
	}
}

// answered counts the answers to the requests in flight by instance.
func answered(conns []*apps.Held) map[string]int {
	got := make(map[string]int)
	for _, h := range conns {
		if instance, err := h.Receive(); err == nil {
			got[instance]++
		}
	}
	return got
}

// rescueLimit is far above the two seconds that docs/balancing.md promises, for machines that are
// busy, and far below what a connection would wait if nobody moved it: clients give up after
// apps.Limit.
const rescueLimit = 15 * time.Second

// testFrozen stops one instance as a debugger does: what was on its way to it is served by others,
// in time.
func testFrozen(t *testing.T, s *apps.System) {
	a := start(t, s, "frozen")
	a.Evenly()
	before := moved(a)
	a.Signal(a.Instance(2), "STOP")
	const clients = 60
	r := a.Load(rig.LoadOptions{Clients: clients, Requests: clients}).Wait()
	a.Lossless(r)
	if r.Instances["2"] > 0 {
		t.Errorf("a stopped instance answered %d requests", r.Instances["2"])
	}
	rescued := moved(a) - before
	t.Logf("rescue from a stopped instance: %d of %d connections, slowest %s", rescued, clients, r.Slowest.Round(time.Millisecond))
	if rescued == 0 || r.Slowest > rescueLimit {
		t.Errorf("%d connections were moved away from the stopped instance, the slowest answer took %s, want at most %s", rescued, r.Slowest, rescueLimit)
	}
	a.Signal(a.Instance(2), "CONT")
	a.AwaitUp(a.N)
}

// moved is how many connections were moved from one listener to another.
func moved(a *apps.App) (n uint64) {
	a.T.Helper()
	for _, address := range a.Status().Addresses {
		n += address.Migrated
	}
	return n
}
