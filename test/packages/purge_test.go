//go:build integration

package packages

import (
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// testAutopkgtests runs the tests of debian/tests on the installed packages.
func testAutopkgtests(t *testing.T, a *hello) {
	rig.Long(t, "autopkgtest builds a package and starts an app, as the tests before it have")
	a.copyTests()
	// Null: this very system is the testbed, as it is a container of its own.
	out, err := a.Exec(t.Context(), "autopkgtest", "--no-built-binaries", "--ignore-restrictions=isolation-container",
		pool+"/unitgen.deb", pool+"/lbshim.deb", pool+"/dh-unitgen.deb", "/srv/source/", "--", "null")
	if err != nil || out.Status != 0 {
		t.Fatalf("autopkgtest: exit status %d, %v\n%s%s", out.Status, err, out.Stdout, out.Stderr)
	}
	for _, test := range []string{"balance", "dh-unitgen"} {
		if !strings.Contains(strings.Join(strings.Fields(out.Stdout+out.Stderr), " "), test+" PASS") {
			t.Errorf("autopkgtest did not run %s:\n%s%s", test, out.Stdout, out.Stderr)
		}
	}
}

// testPurge: nothing is left of the app, also not of what its administrator enabled, nor of
// unitgen.
func testPurge(t *testing.T, a *hello) {
	a.system.install(t, "dh-unitgen")
	a.MustExec(t, "systemctl", "enable", "--now", "hello@7")
	a.AwaitUp(5)
	a.purge("hello")
	if left := a.find("/etc/systemd /usr/lib/systemd /run /var/lib/systemd", "*hello*"); left != "" {
		t.Errorf("after the purge of hello there is:\n%s", left)
	}
	if left := a.MustExec(t, "systemctl", "list-units", "--all", "--no-legend", "hello*", "handed-hello*"); left != "" {
		t.Errorf("after the purge of hello systemd has:\n%s", left)
	}
	if listening := a.MustExec(t, "ss", "-Hltn", "sport = :3000 or sport = :3001"); listening != "" {
		t.Errorf("a port is still open: %s", listening)
	}
	a.purge("unitgen", "lbshim", "dh-unitgen")
	if left := a.find("/run /var/lib/systemd", "*unitgen*"); left != "" {
		t.Errorf("after the purge of all there is:\n%s", left)
	}
	a.sameFiles()
}

// files are the names of all files, sorted. Left out are those of apt, dpkg, systemd, the journal
// and Python, which change as time goes by, and what the tests have made.
func (s *system) files(t *testing.T) []string {
	t.Helper()
	const script = `find / -xdev \( -path /srv -o -path '/etc/sub?id-' -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/lib/systemd \
		-o -path /var/cache/apt -o -path /var/cache/man -o -path /var/cache/debconf -o -path /var/log -o -path /var/tmp -o -name __pycache__ \) -prune -o -print`
	names := strings.Split(s.MustExec(t, "sh", "-c", script), "\n")
	slices.Sort(names)
	return names
}

// sameFiles checks that there are the files that there were before anything was installed.
func (a *hello) sameFiles() {
	a.T.Helper()
	after := a.system.files(a.T)
	for _, path := range after {
		if _, found := slices.BinarySearch(a.clean, path); !found {
			a.T.Errorf("the purge of all has left %s", path)
		}
	}
	for _, path := range a.clean {
		if _, found := slices.BinarySearch(after, path); !found {
			a.T.Errorf("the purge of all has taken %s with it", path)
		}
	}
}

func (a *hello) purge(names ...string) {
	a.T.Helper()
	if said, status := a.system.apt(a.T, append([]string{"purge"}, names...)...); status != 0 {
		a.T.Fatalf("apt-get purge %q: exit status %d\n%s", names, status, said)
	}
}

func (a *hello) find(where, name string) string {
	a.T.Helper()
	return a.MustExec(a.T, "sh", "-c", "find "+where+` -name "$1" 2>/dev/null; true`, "sh", name)
}
