//go:build integration

// Package integration tests apps as their users see them: the units that unitgen writes run under a real PID 1, while
// connections are being made.
//
// What is asserted are counts (no request failed, each instance had exactly its share) and states. Nothing is asserted
// about speed: all limits on time are there to end a test that hangs.
package integration

import (
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

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
		{"AllDown", testAllDown},
		{"Stuck", testStuck},
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
		{"HeldConnection", testHeldConnection},
		{"LeastConnections", testLeastConnections},
		{"ShimCost", testShimCost},
		{"ShimStatus", testShimStatus},
		{"Messages", testMessages},
		{"Secrets", testSecrets},
		{"Watchdog", testWatchdog},
		{"Exposure", testExposure},
		{"PrivateNetwork", testPrivateNetwork},
		{"LbshimAlone", testLbshimAlone},
		{"ControlStrangers", testControlStrangers},
		{"ControlGarbage", testControlGarbage},
	}
	rig.EachSuite(t, func(t *testing.T, suite string) {
		s := apps.Boot(t, suite)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) { tt.run(t, s) })
		}
	})
}
