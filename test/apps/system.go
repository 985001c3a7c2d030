// Package apps runs apps in the containers of package rig as their users would: it installs unitgen
// and the example programs, writes units by the command line, and asks systemd and the shim what
// became of them.
//
// It is for tests under a real systemd; what it cannot do ends the test.
package apps

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// Limit ends waits that cannot end. It is far above what anything takes, even on a machine that is
// busy.
const Limit = 90 * time.Second

// Programs in the container.
const (
	Server  = "/usr/local/bin/server"  // examples/go-http
	CServer = "/usr/local/bin/cserver" // examples/c
	Answer  = "/usr/local/bin/answer"  // examples/socat
	Lbshim  = "/usr/lib/unitgen/lbshim"

	// Folders with examples that are not compiled.
	Node   = "/srv/node"
	Python = "/srv/python"
	WSGI   = "/srv/wsgi"
	ASGI   = "/srv/asgi"
)

// System is a booted container with unitgen and the example programs in it. It may be used by tests
// that run in parallel.
type System struct {
	*rig.Container
	Program []string     // what apps without a command run: the Go example, unless a test says otherwise before its first app
	port    atomic.Int32 // the last one given to a test
}

// Boot boots suite for the length of a test, with further arguments of systemd-nspawn.
func Boot(t *testing.T, suite string, args ...string) *System {
	t.Helper()
	c := rig.Boot(t, suite, rig.Options{Units: []string{"none"}, Args: args}) // each app logs its own journal
	dir := t.TempDir()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	server, cserver := filepath.Join(dir, "server"), filepath.Join(dir, "cserver")
	build(t, root, "go", "build", "-trimpath", "-o", server, "./examples/go-http")
	build(t, root, "cc", "-O2", "-static", "-o", cserver, "examples/c/server.c")
	for dst, src := range map[string]string{
		Server: server, CServer: cserver, "/usr/bin/unitgen": rig.Bin(t, "unitgen"), Lbshim: rig.Bin(t, "lbshim"),
		Lbshim + "-balancer": rig.Bin(t, "lbshim-balancer"),
		Answer:               filepath.Join(root, "examples/socat/answer"),
	} {
		c.MustCopyIn(t, src, dst, 0o755)
	}
	for dst, src := range map[string]string{
		Node + "/server.js":                "examples/node/server.js",
		Python + "/server.py":              "examples/python/server.py",
		WSGI + "/app.py":                   "examples/wsgi/app.py",
		ASGI + "/app.py":                   "examples/asgi/app.py",
		"/usr/lib/unitgen/node/drain.cjs":  "packaging/node/drain.cjs",
		"/usr/lib/sysusers.d/unitgen.conf": "packaging/sysusers.d/unitgen.conf",
	} {
		c.MustCopyIn(t, filepath.Join(root, src), dst, 0o644)
	}
	c.MustExec(t, "systemd-sysusers")
	s := &System{Container: c, Program: []string{Server}}
	s.port.Store(3000)
	return s
}

// build runs a compiler.
func build(t *testing.T, dir string, argv ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	rig.Spend(cmd.ProcessState)
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

// NewPort returns a port that no other test of this system has.
func (s *System) NewPort() int { return int(s.port.Add(1)) }
