//go:build integration

package integration

import (
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
)

// testSecrets gives a program a secret in a file that is root's: it has it, and nothing else does, no unit, no output, no
// file of the balancer's and no journal.
func testSecrets(t *testing.T, s *apps.System) {
	const secret, file = "hunter2-is-not-to-be-seen", "/etc/secrets.env"
	s.MustWriteFile(t, file, "TOKEN="+secret+"\n", 0o600)
	a := apps.Start(t, s, "secrets", "--env-file="+file)
	a.Reload()
	if environ := a.MustExec(t, "cat", "/proc/"+a.PID(a.Instance(1))+"/environ"); !strings.Contains(environ, "TOKEN="+secret) {
		t.Error("the program has no secret")
	}
	for _, argv := range [][]string{
		{"unitgen", "status", a.Name}, {"unitgen", "status", "--json=short", a.Name}, {"unitgen", "list", "--json=short"},
		{"unitgen", "doctor"}, {"unitgen", "logs", a.Name}, {"unitgen", a.Name, "--dry-run"},
		{"systemctl", "show", a.Name, a.Instance(1)}, {"journalctl", "-b"},
		{"cat", "/proc/" + a.PID(a.Shim()) + "/environ", "/proc/" + a.PID(a.Shim()) + "/cmdline"},
	} {
		out, err := a.Exec(t.Context(), argv...)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.Stdout+out.Stderr, secret) {
			t.Errorf("%q shows it", argv)
		}
	}
	if found, err := a.Exec(t.Context(), "grep", "-rl", secret, "/etc/systemd", "/run/unitgen", "/run/systemd", "/var/lib"); err != nil || found.Status != 1 {
		t.Errorf("it is in %+v, %v", found, err)
	}
}
