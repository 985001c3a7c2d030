// Package needs is for tests that take what not every machine has. On a laptop such a test is
// skipped with one line. In CI, where UNITGEN_CI=1 says that nothing may be left out, it fails.
package needs

import (
	"os"
	"os/exec"
	"testing"
)

// Missing ends a test because the machine lacks what format says.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("UNITGEN_CI") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Root ends a test that does not run as root, which takes root's rights for the reason why.
func Root(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "must run as root: %s", why)
	}
}

// Program returns the path of a program of $PATH, which a Debian package has.
func Program(t testing.TB, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "%s is not installed: apt install %s", name, debian)
	}
	return path
}
