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

// hello is a package that was made with dh-unitgen, with an app on each path.
type hello struct {
	*apps.App           // on the steer path
	handed    *apps.App // on the handoff path
	system    *system
	clean     []string // the files before any of the packages was installed
}

// handedPath is where the app on the handoff path listens, beside its port.
const handedPath = "/run/handed-hello.sock"

// both are the two apps.
func (a *hello) both() []*apps.App { return []*apps.App{a.App, a.handed} }

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

// buildHello builds three versions of the package in the container: 1, 2, and a broken 3. It needs
// unitgen and dh-unitgen, and removes them again.
func (s *system) buildHello(t *testing.T) *hello {
	t.Helper()
	clean := s.files(t)
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
	return &hello{
		App:    &apps.App{System: s.System, Name: "hello", Port: 3000, N: 3},
		handed: &apps.App{System: s.System, Name: "handed-hello", Port: 3001, N: 2},
		system: s, clean: clean,
	}
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
	const settings = "Command=/usr/bin/hello\nDrainTimeoutSec=1s\nEnvironment=%s\nInstances=%d\n"
	s.MustWriteFile(t, "/srv/hello/debian/hello.unitgen",
		fmt.Sprintf(settings+"SoakSec=1s\nListen=127.0.0.1:3000\n", environment, instances), 0o644)
	s.MustWriteFile(t, "/srv/hello/debian/hello.handed-hello.unitgen",
		fmt.Sprintf(settings+"SoakSec=100ms\nStrategy=round-robin\nListen=127.0.0.1:3001\nListen=%s\n", environment, 2, handedPath), 0o644)
	s.MustWriteFile(t, "/srv/hello/debian/changelog", fmt.Sprintf("hello (%s) unstable; urgency=medium\n\n  * Release.\n\n"+
		" -- unitgen developers <unitgen@users.noreply.github.com>  Sat, 21 Nov 2026 12:00:00 +0000\n", version), 0o644)
	s.MustExec(t, "sh", "-c", `cd /srv/hello && dpkg-checkbuilddeps -I && debian/rules clean && debian/rules binary &&
		mv ../hello_"$1"_*.deb "$2/hello-$1.deb"`, "sh", version, pool)
}

// testInstall installs the apps; apt brings nothing else but lbshim.
func testInstall(t *testing.T, a *hello) {
	a.system.install(t, "lbshim", "hello-1")
	for _, app := range a.both() {
		for _, unit := range []string{app.Name + ".service", app.Name + ".socket"} {
			if state := a.MustShow(t, unit, "UnitFileState"); state != "enabled" {
				t.Errorf("%s is %s after the installation, want enabled", unit, state)
			}
		}
	}
	a.awaitUp()
	a.evenly()
	a.serve("version=1")
}

// awaitUp waits until all instances of both apps are up.
func (a *hello) awaitUp() {
	a.T.Helper()
	for _, app := range a.both() {
		app.AwaitUp(app.N)
	}
}

// evenly checks that connections are spread exactly.
func (a *hello) evenly() {
	a.T.Helper()
	for _, app := range a.both() {
		app.Evenly()
	}
}

// serve checks that every instance of both apps answers with want.
func (a *hello) serve(want string) {
	a.T.Helper()
	for _, app := range a.both() {
		app.Serves(want)
	}
}

// underLoad runs change while requests come in, and checks that none failed.
func (a *hello) underLoad(change func()) {
	a.T.Helper()
	loads := []*rig.Load{
		a.Load(rig.LoadOptions{Rate: 300}), a.Load(rig.LoadOptions{Rate: 100, KeepAlive: true}),
		a.handed.Load(rig.LoadOptions{Network: "unix", Addr: handedPath, Rate: 100}), a.handed.Load(rig.LoadOptions{Rate: 50, KeepAlive: true}),
	}
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

// processes are the main processes of units.
type processes map[string]string

// instances are the processes of both apps' instances.
func (a *hello) instances() processes {
	a.T.Helper()
	p := make(processes)
	for _, app := range a.both() {
		for i, pid := range app.PIDs() {
			p[app.Instance(i)] = pid
		}
	}
	return p
}

// shims are the processes of both apps' balancers.
func (a *hello) shims() processes {
	a.T.Helper()
	return processes{a.Shim(): a.PID(a.Shim()), a.handed.Shim(): a.PID(a.handed.Shim())}
}

// same checks that the units still have these processes.
func (a *hello) same(before processes) {
	a.T.Helper()
	for unit, pid := range before {
		if now := a.PID(unit); now != pid {
			a.T.Errorf("%s has process %s, before it was %s", unit, now, pid)
		}
	}
}

// renewed checks that each of the units has another process.
func (a *hello) renewed(before processes) {
	a.T.Helper()
	for unit, pid := range before {
		if now := a.PID(unit); now == pid || now == "0" {
			a.T.Errorf("%s has process %s, before it was %s", unit, now, pid)
		}
	}
}

// testUpgradeApp upgrades to a version that has another environment and one instance more.
func testUpgradeApp(t *testing.T, a *hello) {
	instances, shims, socket := a.instances(), a.shims(), a.MustShow(t, "hello.socket", "InvocationID")
	a.underLoad(func() { a.system.install(t, "hello-2") })
	a.N = 4
	a.awaitUp()
	a.serve("version=2")
	a.renewed(instances)
	a.same(shims)
	if now := a.MustShow(t, "hello.socket", "InvocationID"); now != socket {
		t.Error("the upgrade restarted hello.socket")
	}
}

// testUpgradeToBroken upgrades to a version that does not start: apt says so and where the
// program's own words are, which not everybody may read; and nobody else notices.
func testUpgradeToBroken(t *testing.T, a *hello) {
	instances := a.instances()
	var said string
	a.underLoad(func() { said = a.system.install(t, "hello-3") })
	for _, want := range []string{"does not run the code of this version", "rollout failed", "exit status 3; the reason is in the journal", "systemctl reload hello", "systemctl reload handed-hello"} {
		if !strings.Contains(said, want) {
			t.Errorf("apt does not say %q:\n%s", want, said)
		}
	}
	if log := a.Log("hello@*"); !strings.Contains(log, "no such table: greetings") {
		t.Errorf("the journal does not say why:\n%s", log)
	}
	a.same(instances)
	a.serve("version=2")
	a.underLoad(func() { said = a.system.install(t, "hello-2") }) // the way back is a rollout too
	if strings.Contains(said, "does not run") {
		t.Errorf("apt of the way back:\n%s", said)
	}
	a.awaitUp()
	a.serve("version=2")
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
