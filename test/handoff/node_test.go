//go:build integration

package handoff

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// node is what TestNode and TestNodeLikeGo run: a program that gets its connections by Node's own
// cluster protocol. The balancer accepts, whatever the strategy.
var node = []string{"/usr/bin/node", apps.Node + "/server.js"}

// TestNode runs what depends on how a program is given its connections.
func TestNode(t *testing.T) {
	runAll(t, nil, []test{
		{"Spread", testSpread},
		{"NodeUnix", testNodeUnix},
		{"KillShimSourceHash", testKillShimSourceHash},
		{"KillInstance", testKillInstance},
		{"Reload", testReload},
		{"Stop", testStop},
	}, node...)
}

// TestNodeLikeGo runs what the balancer decides, whatever the program is.
func TestNodeLikeGo(t *testing.T) {
	rig.Long(t, "TestHandoff proves it with the example in Go")
	runAll(t, nil, []test{
		{"LeastConnections", testLeastConnections},
		{"SourceHash", testSourceHash},
		{"Stuck", testStuck},
		{"AllDown", testAllDown},
		{"PrivateNetwork", testPrivateNetwork},
		{"IdleExit", testIdleExit},
		{"ChangePath", testChangePath},
	}, node...)
}

// testNodeUnix serves a port and a unix socket at a time, each with an exact spread, and rolls
// under load.
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
