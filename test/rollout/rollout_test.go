//go:build integration

// Package rollout tests what people come for: real programs of many kinds, unchanged, renewed by
// "systemctl reload" and "systemctl restart" under load without a lost request, and releases that
// are broken and must not get in.
//
// What is asserted are counts (no request failed, each instance had exactly its share), states and
// reasons. Figures of time are logged; limits on time are there to end a test that hangs.
package rollout

import (
	"fmt"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// A queue says how many tests run at a time.
func TestMain(m *testing.M) { rig.Main(m, 1000) }

// queue begins tests in their order, some at a time. Package testing begins parallel tests in any
// order, and those that take long would be left for the end.
type queue struct {
	slots chan struct{}
	last  chan struct{} // closed when the last test that came has begun
}

func newQueue(slots int) *queue {
	q := &queue{slots: make(chan struct{}, slots), last: make(chan struct{})}
	close(q.last)
	return q
}

// parallel is t.Parallel, and returns when it is the test's turn. The test has its slot until it is
// cleaned up.
func (q *queue) parallel(t *testing.T) {
	turn, begun := q.last, make(chan struct{})
	q.last = begun
	t.Parallel()
	<-turn
	q.slots <- struct{}{}
	t.Cleanup(func() { <-q.slots })
	close(begun)
}

// test is one that shares a booted system with others, with apps of its own.
type test struct {
	name   string
	run    func(*testing.T, *apps.System)
	loaded bool // it takes a good part of a CPU all the time
}

// start is apps.Start for two instances, or in make test-all three.
func start(t *testing.T, s *apps.System, name string, words ...string) *apps.App {
	t.Helper()
	return apps.Start(t, s, name, append([]string{apps.Size(3)}, words...)...)
}

// inTheMiddle is how the status line begins when one instance of the app is new.
func inTheMiddle(a *apps.App) string { return fmt.Sprintf("rollout 1/%d", a.N) }

// both are the tests that run on systemd 252 too: a reload, and PID 1 that reads its units anew
// meanwhile.
var both = []string{"DaemonReload", "Surge"}

func TestRollout(t *testing.T) {
	tests := []test{
		{name: "Broken", run: testBroken},
		{name: "HangsInStop", run: testHangsInStop},
		{name: "StopInRollout", run: testStopInRollout},
		{name: "StopStubborn", run: testStopStubborn},
		{name: "StopInReloadDrains", run: testStopInReloadDrains},
		{name: "Cancel", run: testCancel},
		{name: "Progress", run: testProgress},
		{name: "Top", run: testTop},
		{name: "Interrupted", run: testInterrupted},
		{name: "KillShimInRollout", run: testKillShimInRollout},
		{name: "KillShimInDrain", run: testKillShimInDrain},
		{name: "KillShimInStop", run: testKillShimInStop},
		{name: "KillShimEarlyInReload", run: testKillShimEarlyInReload},
		{name: "ScaleInReload", run: testScaleInReload},
		{name: "RestartInReload", run: testRestartInReload},
		{name: "RestartFails", run: testRestartFails},
		{name: "RestartAfterCrash", run: testRestartAfterCrash},
		{name: "KillShimInRestart", run: testKillShimInRestart},
		{name: "Join", run: testJoin},
		{name: "Surge", run: testSurge},
		{name: "SecondReload", run: testSecondReload},
		{name: "StoppedStays", run: testStoppedStays},
		{name: "ReadyHTTP", run: testReadyHTTP},
		{name: "ReadyExec", run: testReadyExec},
		{name: "ReadyNotify", run: testReadyNotify},
		{name: "ReadyFenced", run: testReadyFenced},
		{name: "NeverReady", run: testNeverReady},
		{name: "Hostile", run: testHostile},
		{name: "DeferAccept", run: testDeferAccept},
		{name: "Config", run: testConfig},
		{name: "SharedDirectory", run: testSharedDirectory},
		{name: "Crude", run: testCrude},
		{name: "IdleKeepAlive", run: testIdleKeepAlive},
		{name: "BusyHolds", run: testBusyHolds},
		{name: "Frozen", run: testFrozen},
	}
	rig.Table(t, both, func(t *testing.T, suite string, run rig.Runner) {
		s := apps.Boot(t, suite)
		// By themselves: while PID 1 executes itself anew, commands of other tests would fail.
		run("DaemonReload", nil, func(t *testing.T) { testDaemonReload(t, s) })
		run("StopInReexec", nil, func(t *testing.T) { testStopInReexec(t, s) })
		// One under load at a time: side by side each would take longer, and so put more load on
		// the machine in all.
		loaded, others := newQueue(1), newQueue(3)
		if rig.All() { // both systemds run at a time
			others = newQueue(2)
		}
		for _, tt := range append(programTests(suite), tests...) {
			q := others
			if tt.loaded {
				q = loaded
			}
			run(tt.name, q.parallel, func(t *testing.T) { tt.run(t, s) })
		}
	})
}
