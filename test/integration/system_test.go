//go:build integration

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// limit ends waits that cannot end. It is far above what anything here takes, even on a machine that is busy.
const limit = 90 * time.Second

// Programs in the container.
const (
	server  = "/usr/local/bin/server"  // examples/go-http
	cserver = "/usr/local/bin/cserver" // examples/c
	lbshim  = "/usr/lib/unitgen/lbshim"
)

// system is a booted container with unitgen and the example programs in it.
type system struct {
	*rig.Container
	port int // the last one given to a test
}

func boot(t *testing.T, suite string) *system {
	t.Helper()
	c := rig.Boot(t, suite, rig.Options{Units: []string{"none"}}) // each app logs its own journal
	dir := t.TempDir()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	build(t, root, "go", "build", "-trimpath", "-o", filepath.Join(dir, "server"), "./examples/go-http")
	build(t, root, "cc", "-O2", "-static", "-o", filepath.Join(dir, "cserver"), "examples/c/server.c")
	c.MustCopyIn(t, filepath.Join(dir, "server"), server, 0o755)
	c.MustCopyIn(t, filepath.Join(dir, "cserver"), cserver, 0o755)
	c.MustCopyIn(t, rig.Bin(t, "unitgen"), "/usr/bin/unitgen", 0o755)
	c.MustCopyIn(t, rig.Bin(t, "lbshim"), lbshim, 0o755)
	c.MustCopyIn(t, filepath.Join(root, "packaging/sysusers.d/unitgen.conf"), "/usr/lib/sysusers.d/unitgen.conf", 0o644)
	c.MustExec(t, "systemd-sysusers")
	return &system{Container: c, port: 3000}
}

// build runs a compiler.
func build(t *testing.T, dir string, argv ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

// newPort returns a port that no other test of this system has.
func (s *system) newPort() int {
	s.port++
	return s.port
}
