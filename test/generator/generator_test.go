//go:build integration

// Package generator tests unitgen as its users run it: the real program on a real systemd, from the
// command line to what PID 1 executes, listens on and leaves behind.
//
// What apps do under load is package integration's matter. Here nothing is asserted about speed:
// all limits on time are there to end a test that hangs.
package generator

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// limit ends waits that cannot end. It is far above what anything here takes, even on a machine
// that is busy.
const limit = 60 * time.Second

// Programs and places in the container.
const (
	server = "/usr/local/bin/server"   // examples/go-http
	echo   = "/usr/local/bin/echoargs" // ./echoargs
	lbshim = "/usr/lib/unitgen/lbshim"
	units  = "/etc/systemd/system"
)

// both are the tests that run on systemd 252 too: what its unit files and its parser make of
// arguments, and what its systemctl says.
var both = []string{"LiveArguments", "Remove", "NowFails"}

// TestUnitgen runs the tests that share a booted system, each with apps of its own.
func TestUnitgen(t *testing.T) {
	programs := build(t)
	tests := []struct {
		name string
		run  func(*testing.T, *system)
	}{
		{"LiveArguments", testLiveArguments},
		{"Learn", testLearn},
		{"Accounts", testAccounts},
		{"Siblings", testSiblings},
		{"SocketPath", testSocketPath},
		{"Place", testPlace},
		{"BindV6Only", testBindV6Only},
		{"Scale", testScale},
		{"Names", testNames},
		{"Update", testUpdate},
		{"Listen", testListen},
		{"ListenIdle", testListenIdle},
		{"DropIns", testDropIns},
		{"Foreign", testForeign},
		{"NowFails", testNowFails},
		{"MendStarting", testMendStarting},
		{"MendFailing", testMendFailing},
		{"Remove", testRemove},
		{"ReadOnlyVerbs", testReadOnlyVerbs},
		{"List", testList},
		{"Output", testOutput},
		{"File", testFile},
		{"Doctor", testDoctor},
		{"DoctorMany", testDoctorMany},
		{"Docs", testDocs},
		{"AtOnce", testAtOnce},
		{"Killed", testKilled},
		{"KilledMoving", testKilledMoving},
		{"BadInput", testBadInput},
		{"BadSettings", testBadSettings},
		{"BadDisk", testBadDisk},
		{"NoSystemd", testNoSystemd},
		{"UserUnits", testUserUnits},
	}
	rig.Table(t, both, func(t *testing.T, suite string, run rig.Runner) {
		s := boot(t, suite, programs)
		for _, tt := range tests {
			run(tt.name, nil, func(t *testing.T) { tt.run(t, s) })
		}
	})
}

// TestOutage has a system of its own: what else is on the bus, such as logind, does not outlive that the
// bus dies again and again.
func TestOutage(t *testing.T) {
	programs := build(t)
	rig.Table(t, nil, func(t *testing.T, suite string, run rig.Runner) {
		s := boot(t, suite, programs)
		run("Unitgen", nil, func(t *testing.T) { testOutage(t, s) })
	})
}

// system is a booted container with unitgen and the programs of the tests in it.
type system struct {
	*rig.Container
	port int // the last one given to a test
}

// build builds the programs that apps run, into a folder of the test's.
func build(t *testing.T) string {
	t.Helper()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, source := range map[string]string{server: "./examples/go-http", echo: "./test/generator/echoargs"} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", filepath.Join(dir, filepath.Base(name)), source)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		rig.Spend(cmd.ProcessState)
		if err != nil {
			t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
		}
	}
	return dir
}

func boot(t *testing.T, suite, programs string) *system {
	t.Helper()
	c := rig.Boot(t, suite, rig.Options{Units: []string{"none"}}) // each app logs its own journal
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{server, echo} {
		c.MustCopyIn(t, filepath.Join(programs, filepath.Base(name)), name, 0o755)
	}
	c.MustCopyIn(t, rig.Bin(t, "unitgen"), "/usr/bin/unitgen", 0o755)
	c.MustCopyIn(t, rig.Bin(t, "lbshim"), lbshim, 0o755)
	c.MustCopyIn(t, rig.Bin(t, "lbshim-balancer"), lbshim+"-balancer", 0o755)
	c.MustCopyIn(t, filepath.Join(root, "packaging/sysusers.d/unitgen.conf"), "/usr/lib/sysusers.d/unitgen.conf", 0o644)
	c.MustExec(t, "systemd-sysusers")
	return &system{Container: c, port: 3000}
}

// newPort returns a port that no other test of this system has.
func (s *system) newPort() int {
	s.port++
	return s.port
}

func listenOption(port int) string { return fmt.Sprintf("--listen=%d", port) }
