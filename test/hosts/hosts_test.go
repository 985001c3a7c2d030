//go:build integration

// Package hosts tests apps on more than one machine: what an agent tells load balancers, the drain
// of a host, and the files that unitgen writes for HAProxy, nginx, Caddy, keepalived and Ansible,
// run by these themselves.
package hosts

import (
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m, 6) }

// TestHost is what one host does of it. Nothing in it depends on the version of systemd.
func TestHost(t *testing.T) {
	rig.Table(t, nil, func(t *testing.T, suite string, run rig.Runner) {
		s := apps.Boot(t, suite)
		// By itself, as it reboots the system.
		run("DrainReboot", nil, func(t *testing.T) { testDrainReboot(t, s) })
		for name, test := range map[string]func(*testing.T, *apps.System){
			"Agent":      testAgent,
			"AgentPath":  testAgentPath,
			"AgentTaken": testAgentTaken,
			"AskedStop":  testAskedInAStop,
			"Drain":      testDrain,
		} {
			run(name, (*testing.T).Parallel, func(t *testing.T) { test(t, s) })
		}
	})
}
