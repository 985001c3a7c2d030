//go:build integration

// Package packages tests the packages as those who install them see them: real apt in a booted
// container, under load.
//
// The packages are built by packaging/build, once for all tests; test/prepare installs what that
// needs. What is asserted are counts, states and what is left behind. Nothing is asserted about
// speed: all limits on time are there to end a test that hangs.
package packages

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// buildLimit ends a build that hangs.
const buildLimit = 15 * time.Minute

// pool is where the container has the packages.
const pool = "/srv/packages"

// TestPackages installs, upgrades and purges packages. The tests of one container build on each
// other: each leaves an app running and under no load.
func TestPackages(t *testing.T) {
	rig.NewestSuite(t, func(t *testing.T, suite string) {
		s := boot(t, suite)
		a := s.buildHello(t)
		for _, tt := range []struct {
			name string
			run  func(*testing.T, *hello)
		}{
			{"Install", testInstall},
			{"UpgradeApp", testUpgradeApp},
			{"UpgradeToBroken", testUpgradeToBroken},
			{"UpgradeLbshim", testUpgradeLbshim},
			{"UpgradeLbshimInRollout", testUpgradeLbshimInRollout},
			{"UpgradeToBrokenLbshim", testUpgradeToBrokenLbshim},
			{"UpgradeUnitgen", testUpgradeUnitgen},
			{"UpgradeSystemd", testUpgradeSystemd},
			{"Operators", testOperators},
			{"Autopkgtests", testAutopkgtests},
			{"Purge", testPurge},
		} {
			ok := t.Run(tt.name, func(t *testing.T) {
				rig.Charge(t)
				a.T, a.handed.T = t, t
				tt.run(t, a)
			})
			if !ok {
				t.FailNow() // what follows needs what this has left
			}
		}
	})
}

// built builds packages of all formats that are asked for, each once.
var built struct {
	sync.Mutex
	err map[string]error
}

// build makes the packages of a format, and returns the folder that has them.
func build(t *testing.T, format string) string {
	t.Helper()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	rig.Charge(t)
	built.Lock()
	defer built.Unlock()
	for _, step := range []string{"dist", format} {
		err, done := built.err[step]
		if !done {
			err = run(t, root, nil, filepath.Join(root, "packaging/build"), step)
			if built.err == nil {
				built.err = make(map[string]error)
			}
			built.err[step] = err
		}
		if err != nil {
			t.Fatalf("packaging/build %s: %v", step, err)
		}
	}
	return filepath.Join(root, "build", format)
}

// run runs a command of the host, whose output is shown if it fails. env is added to the
// environment.
func run(t *testing.T, dir string, env []string, argv ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEB_BUILD_OPTIONS=nocheck noautodbgsym")
	if !rig.All() { // how well the packages compress is not what is tested
		cmd.Env = append(cmd.Env, "DPKG_DEB_COMPRESSOR_LEVEL=0")
	}
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	rig.Spend(cmd.ProcessState)
	if err != nil {
		lines := strings.SplitAfter(string(out), "\n")
		t.Logf("%q:\n%s", argv, strings.Join(lines[max(0, len(lines)-60):], ""))
	}
	return err
}

// output is what a command of the host prints; its failure ends the test.
func output(t *testing.T, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	out, err := cmd.Output()
	rig.Spend(cmd.ProcessState)
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

// one returns the only file that matches pattern.
func one(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("files %s: %q, %v; want one", pattern, found, err)
	}
	return found[0]
}

// system is a booted container that has the packages, not installed.
type system struct{ *apps.System }

func boot(t *testing.T, suite string) *system {
	t.Helper()
	dir := build(t, "deb")
	c := rig.Boot(t, suite, rig.Options{Units: []string{"hello*", "handed-hello*"}})
	for _, name := range []string{"unitgen", "lbshim", "dh-unitgen"} {
		c.MustCopyIn(t, one(t, filepath.Join(dir, name+"_*.deb")), pool+"/"+name+".deb", 0o644)
	}
	// There is no network: apt must not look for archives.
	c.MustExec(t, "sh", "-c", "rm -rf /etc/apt/sources.list.d/*; : >/etc/apt/sources.list; mkdir -p /var/lib/apt/lists/partial")
	return &system{&apps.System{Container: c}}
}

// apt runs apt-get, and returns all that it says.
func (s *system) apt(t *testing.T, words ...string) (said string, status int) {
	t.Helper()
	argv := append([]string{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-q", "--allow-downgrades"}, words...)
	out, err := s.Exec(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out.Stdout + out.Stderr, out.Status
}

// install has apt install packages of the pool.
func (s *system) install(t *testing.T, names ...string) (said string) {
	t.Helper()
	words := []string{"install"}
	for _, name := range names {
		words = append(words, pool+"/"+name+".deb")
	}
	said, status := s.apt(t, words...)
	if status != 0 {
		t.Fatalf("apt-get install %q: exit status %d\n%s", names, status, said)
	}
	return said
}

// repack makes a package of another version in the pool. edit is a shell script that runs in the
// unpacked package.
func (s *system) repack(t *testing.T, name, to, version, edit string) {
	t.Helper()
	const script = `set -e; cd "$1"; rm -rf tree; dpkg-deb --raw-extract "$2.deb" tree; cd tree
		sed -i "s/^Version: .*/Version: $4/" DEBIAN/control; eval "$5"; cd ..; dpkg-deb -Znone --build tree "$3.deb"; rm -r tree`
	s.MustExec(t, "sh", "-c", script, "sh", pool, name, to, version, edit)
}
