//go:build integration

// Package integration tests apps as their users see them: the units that unitgen writes run under a
// real PID 1, while connections are being made.
//
// What is asserted are counts (no request failed, each instance had exactly its share) and states.
// Nothing is asserted about speed: all limits on time are there to end a test that hangs.
package integration

import (
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// both are the tests that run on systemd 252 too: the path of a connection from start to stop, and
// LeastConnections, where a start waits for RestartSec= on 252.
var both = []string{"StartWaits", "KillShim", "Stop", "LeastConnections"}

// TestApps runs the tests that share a booted system, each with apps of its own.
func TestApps(t *testing.T) {
	tests := []struct {
		name string
		run  func(*testing.T, *apps.System)
	}{
		{"Spread", testSpread},
		{"StartWaits", testStartWaits},
		{"StartFails", testStartFails},
		{"ConnectStarts", testConnectStarts},
		{"KillShim", testKillShim},
		{"SteerWithoutShim", testSteerWithoutShim},
		{"KillInstance", testKillInstance},
		{"CrashLoop", testCrashLoop},
		{"KillDraining", testKillDraining},
		{"AllDown", testAllDown},
		{"Stuck", testStuck},
		{"AllStuck", testAllStuck},
		{"Rescue", testRescue},
		{"RestartInstance", testRestartInstance},
		{"RestartApp", testRestartApp},
		{"Stop", testStop},
		{"StopStart", testStopStart},
		{"StopWhileStarting", testStopWhileStarting},
		{"StopAfterCrash", testStopAfterCrash},
		{"StopWhileFailing", testStopWhileFailing},
		{"AddInstance", testAddInstance},
		{"IdleExit", testIdleExit},
		{"StopWhileIdle", testStopWhileIdle},
		{"WakeWhileIdling", testWakeWhileIdling},
		{"HeldConnection", testHeldConnection},
		{"LeastConnections", testLeastConnections},
		{"SourceHash", testSourceHash},
		{"RandomTwo", testRandomTwo},
		{"ShimCost", testShimCost},
		{"ShimStatus", testShimStatus},
		{"Messages", testMessages},
		{"Secrets", testSecrets},
		{"Spoken", testSpoken},
		{"Watchdog", testWatchdog},
		{"Exposure", testExposure},
		{"CommandsAskNothing", testCommandsAskNothing},
		{"Unloaded", testUnloaded},
		{"Slice", testSlice},
		{"PrivateNetwork", testPrivateNetwork},
		{"LbshimAlone", testLbshimAlone},
		{"RedirectedOutput", testRedirectedOutput},
		{"ForgedSignals", testForgedSignals},
		{"ControlStrangers", testControlStrangers},
		{"ControlGarbage", testControlGarbage},
	}
	rig.Table(t, both, func(t *testing.T, suite string, run rig.Runner) {
		s := apps.Boot(t, suite)
		for _, tt := range tests {
			run(tt.name, nil, func(t *testing.T) { tt.run(t, s) })
		}
	})
}
