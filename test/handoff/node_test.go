//go:build integration

package handoff

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// TestNode runs with a Node.js program, which gets its connections by Node's own cluster protocol, what does not depend on
// the kind of program, and what is special about it: the balancer accepts, whatever the strategy.
func TestNode(t *testing.T) {
	runAll(t, []test{
		{"Spread", testSpread},
		{"LeastConnections", testLeastConnections},
		{"SourceHash", testSourceHash},
		{"NodeUnix", testNodeUnix},
		{"KillShimSourceHash", testKillShimSourceHash},
		{"KillInstance", testKillInstance},
		{"Stuck", testStuck},
		{"AllDown", testAllDown},
		{"Reload", testReload},
		{"PrivateNetwork", testPrivateNetwork},
		{"Stop", testStop},
		{"IdleExit", testIdleExit},
		{"ChangePath", testChangePath},
	}, "/usr/bin/node", apps.Node+"/server.js")
}

// testNodeUnix serves a port and a unix socket at a time, each with an exact spread, and rolls under load.
func testNodeUnix(t *testing.T, s *apps.System) {
	const path = "/run/ho-node-unix.sock"
	port := fmt.Sprint(s.NewPort())
	a := apps.New(t, s, "ho-node-unix", append([]string{"--now", "--listen=" + path, "--listen=" + port, "--strategy=round-robin", "--"},
		append(s.Program, path, port)...)...)
	a.AwaitUp(a.N)
	if out := a.MustExec(t, "unitgen", "status", a.Name); !strings.Contains(out, path) {
		t.Errorf("unitgen status says\n%s", out)
	}
	r := a.Load(rig.LoadOptions{Network: "unix", Addr: path, Requests: 120, Clients: 1}).Wait()
	a.Lossless(r)
	for pid, n := range r.PIDs {
		if n != 40 {
			t.Errorf("process %d had %d connections, want 40: %v", pid, n, r.PIDs)
		}
	}
	for network, address := range map[string]string{"unix": path, "tcp": "127.0.0.1:" + port} {
		load := a.Load(rig.LoadOptions{Network: network, Addr: address, Rate: 200})
		a.Reload()
		a.AwaitOK(load, 200)
		a.Lossless(load.Stop())
	}
}
