//go:build integration

package packages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// hello is an app from a package that was made with dh-unitgen.
type hello struct {
	*apps.App
	system *system
}

// The source package, as its maintainer would write it.
var helloSource = map[string]string{
	"control": `Source: hello
Section: misc
Priority: optional
Maintainer: unitgen developers <unitgen@users.noreply.github.com>
Build-Depends: debhelper-compat (= 13), dh-sequence-unitgen
Standards-Version: 4.6.2
Rules-Requires-Root: no

Package: hello
Architecture: any
Depends: ${misc:Depends}
Description: balanced greeting
 An example.
`,
	"rules":   "#!/usr/bin/make -f\n%:\n\tdh $@\n",
	"install": "hello usr/bin\n",
}

// buildHello builds three versions of the package in the container: 1, 2, and a broken 3. It needs unitgen and dh-unitgen,
// and removes them again.
func (s *system) buildHello(t *testing.T) *hello {
	t.Helper()
	s.install(t, "lbshim", "unitgen", "dh-unitgen")
	for name, text := range helloSource {
		s.MustWriteFile(t, "/srv/hello/debian/"+name, text, 0o755)
	}
	s.MustExec(t, "chmod", "644", "/srv/hello/debian/install")
	server := filepath.Join(t.TempDir(), "server")
	buildServer(t, server)
	s.MustCopyIn(t, server, "/srv/hello/hello", 0o755)
	s.buildVersion(t, "1", "APP_VERSION=1", 3)
	s.buildVersion(t, "2", "APP_VERSION=2", 4)
	s.MustWriteFile(t, "/srv/hello/hello", "#!/bin/sh\necho 'no such table: greetings' >&2\nexit 3\n", 0o755)
	s.buildVersion(t, "3", "APP_VERSION=3", 4)
	if said, status := s.apt(t, "purge", "unitgen", "lbshim", "dh-unitgen"); status != 0 {
		t.Fatalf("apt-get purge: exit status %d\n%s", status, said)
	}
	return &hello{App: &apps.App{System: s.System, Name: "hello", Port: 3000, N: 3}, system: s}
}

// buildServer builds the Go example.
func buildServer(t *testing.T, to string) {
	t.Helper()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, "./examples/go-http")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build server: %v\n%s", err, out)
	}
}

// buildVersion builds one version and puts it into the pool as hello-VERSION.
func (s *system) buildVersion(t *testing.T, version, environment string, instances int) {
	t.Helper()
	s.MustWriteFile(t, "/srv/hello/debian/hello.unitgen",
		fmt.Sprintf("Command=/usr/bin/hello\nListen=127.0.0.1:3000\nInstances=%d\nSoakSec=1s\nDrainTimeoutSec=1s\nEnvironment=%s\n", instances, environment), 0o644)
	s.MustWriteFile(t, "/srv/hello/debian/changelog", fmt.Sprintf("hello (%s) unstable; urgency=medium\n\n  * Release.\n\n"+
		" -- unitgen developers <unitgen@users.noreply.github.com>  Sat, 21 Nov 2026 12:00:00 +0000\n", version), 0o644)
	s.MustExec(t, "sh", "-c", `cd /srv/hello && dpkg-checkbuilddeps -I && debian/rules clean && debian/rules binary &&
		mv ../hello_"$1"_*.deb "$2/hello-$1.deb"`, "sh", version, pool)
}

// testInstall installs the app; apt brings nothing else but lbshim.
func testInstall(t *testing.T, a *hello) {
	a.system.install(t, "lbshim", "hello-1")
	for _, unit := range []string{"hello.service", "hello.socket"} {
		if state := a.MustShow(t, unit, "UnitFileState"); state != "enabled" {
			t.Errorf("%s is %s after the installation, want enabled", unit, state)
		}
	}
	a.AwaitUp(3)
	a.Evenly()
	a.Serves("version=1")
}

// underLoad runs change while requests come in, and checks that none failed.
func (a *hello) underLoad(change func()) {
	a.T.Helper()
	loads := []*rig.Load{a.Load(rig.LoadOptions{Rate: 300}), a.Load(rig.LoadOptions{Rate: 100, KeepAlive: true})}
	for _, load := range loads {
		a.AwaitOK(load, 50)
	}
	change()
	for _, load := range loads {
		a.AwaitOK(load, 50)
		r := load.Stop()
		a.Lossless(r)
		a.T.Logf("load: %s", r)
	}
}

// testUpgradeApp upgrades to a version that has another environment and one instance more.
func testUpgradeApp(t *testing.T, a *hello) {
	before, socket, shim := a.PIDs(), a.MustShow(t, "hello.socket", "InvocationID"), a.PID(a.Shim())
	a.underLoad(func() { a.system.install(t, "hello-2") })
	a.N = 4
	a.AwaitUp(4)
	a.Serves("version=2")
	for i, pid := range before {
		if now := a.PID(a.Instance(i)); now == pid || now == "0" {
			t.Errorf("instance %d has process %s after the upgrade, as before", i, now)
		}
	}
	if now := a.MustShow(t, "hello.socket", "InvocationID"); now != socket {
		t.Error("the upgrade restarted hello.socket")
	}
	if now := a.PID(a.Shim()); now != shim {
		t.Errorf("the balancer has process %s after the upgrade of its app, before it was %s", now, shim)
	}
}

// testUpgradeToBroken upgrades to a version that does not start: apt says why, and nobody else notices.
func testUpgradeToBroken(t *testing.T, a *hello) {
	before := a.PIDs()
	var said string
	a.underLoad(func() { said = a.system.install(t, "hello-3") })
	for _, want := range []string{"does not run the code of this version", "rollout failed", "no such table: greetings", "systemctl reload hello"} {
		if !strings.Contains(said, want) {
			t.Errorf("apt does not say %q:\n%s", want, said)
		}
	}
	a.Serves("version=2")
	for i, pid := range before {
		if now := a.PID(a.Instance(i)); now != pid {
			t.Errorf("instance %d has process %s after an upgrade that failed, before it was %s", i, now, pid)
		}
	}
	a.underLoad(func() { said = a.system.install(t, "hello-2") }) // the way back is a rollout too
	if strings.Contains(said, "does not run") {
		t.Errorf("apt of the way back:\n%s", said)
	}
	a.AwaitUp(4)
	a.Serves("version=2")
}

// as runs systemctl as a user without rights of its own.
func (a *hello) as(t *testing.T, user string, words ...string) rig.Output {
	t.Helper()
	out, err := a.Exec(t.Context(), append([]string{"runuser", "-u", user, "--", "systemctl", "--no-ask-password"}, words...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// copyTests copies what autopkgtest takes from the source package.
func (a *hello) copyTests() {
	a.T.Helper()
	root, err := rig.RepoRoot()
	if err != nil {
		a.T.Fatal(err)
	}
	for _, name := range []string{"control", "changelog", "tests/control", "tests/balance", "tests/dh-unitgen"} {
		st, err := os.Stat(filepath.Join(root, "debian", name))
		if err != nil {
			a.T.Fatal(err)
		}
		a.MustCopyIn(a.T, filepath.Join(root, "debian", name), "/srv/source/debian/"+name, st.Mode().Perm())
	}
}
