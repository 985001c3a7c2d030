//go:build integration

package packages

import (
	"strings"
	"testing"
)

// testAutopkgtests runs the tests of debian/tests on the installed packages.
func testAutopkgtests(t *testing.T, a *hello) {
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

// testPurge: nothing is left of the app, also not of what its administrator enabled, nor of unitgen.
func testPurge(t *testing.T, a *hello) {
	a.MustExec(t, "systemctl", "enable", "--now", "hello@7")
	a.AwaitUp(5)
	a.purge("hello")
	if left := a.find("/etc/systemd /usr/lib/systemd /run/systemd /var/lib/systemd /run/unitgen", "*hello*"); left != "" {
		t.Errorf("after the purge of hello there is:\n%s", left)
	}
	if left := a.MustExec(t, "systemctl", "list-units", "--all", "--no-legend", "hello*"); left != "" {
		t.Errorf("after the purge of hello systemd has:\n%s", left)
	}
	if listening := a.MustExec(t, "ss", "-Hltn", "sport = :3000"); listening != "" {
		t.Errorf("the port is still open: %s", listening)
	}
	a.purge("unitgen", "lbshim", "dh-unitgen")
	if left := a.find("/etc /usr /run /var", "*unitgen*"); left != "" {
		t.Errorf("after the purge of all there is:\n%s", left)
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
