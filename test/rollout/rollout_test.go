//go:build integration

// Package rollout tests what people come for: real programs of many kinds, unchanged, renewed by "systemctl reload" and
// "systemctl restart" under load without a lost request, and releases that are broken and must not get in.
//
// What is asserted are counts (no request failed, each instance had exactly its share), states and reasons. Figures of
// time are logged; limits on time are there to end a test that hangs.
package rollout

import (
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m, 4) }

// test is one that shares a booted system with others, with apps of its own.
type test struct {
	name string
	run  func(*testing.T, *apps.System)
}

// TestRollout runs everything on each systemd.
func TestRollout(t *testing.T) {
	tests := []test{
		{"Broken", testBroken},
		{"HangsInStop", testHangsInStop},
		{"StopInRollout", testStopInRollout},
		{"Cancel", testCancel},
		{"KillShimInRollout", testKillShimInRollout},
		{"Surge", testSurge},
		{"SecondReload", testSecondReload},
		{"StoppedStays", testStoppedStays},
		{"ReadyHTTP", testReadyHTTP},
		{"ReadyExec", testReadyExec},
		{"ReadyNotify", testReadyNotify},
		{"ReadyFenced", testReadyFenced},
		{"NeverReady", testNeverReady},
		{"Config", testConfig},
		{"Crude", testCrude},
		{"IdleKeepAlive", testIdleKeepAlive},
		{"BusyHolds", testBusyHolds},
		{"Frozen", testFrozen},
	}
	rig.EachSuite(t, func(t *testing.T, suite string) {
		s := apps.Boot(t, suite)
		// By itself: while PID 1 executes itself anew, commands of other tests would fail.
		t.Run("DaemonReload", func(t *testing.T) { testDaemonReload(t, s) })
		for _, tt := range append(programTests(suite), tests...) {
			t.Run(tt.name, func(t *testing.T) {
				if tt.name != "Program/go" { // the one with the load of a busy machine
					t.Parallel()
				}
				tt.run(t, s)
			})
		}
	})
}
