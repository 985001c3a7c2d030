//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
)

// testSecrets gives a program a secret in a file that is root's: it has it, and nothing else does,
// no unit, no output, no file of the balancer's and no journal.
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

// testSpoken has a program say a secret as it dies, as programs do that cannot reach their
// database: in a start and in a release that does not get in. The journal has it, for those who may
// read that; no user of the host finds it elsewhere.
func testSpoken(t *testing.T, s *apps.System) {
	program := func(secret string) (file string) { // the secret is in no command line
		file = strings.Replace("/srv/"+secret+".sh", "hunter2", "dies", 1)
		s.MustWriteFile(t, file, fmt.Sprintf("echo 'FATAL: cannot connect to postgres://app:%s@db' >&2; exit 1\n", secret), 0o644)
		return file
	}
	silent := func(a *apps.App, secret string) {
		t.Helper()
		if log := a.Log(a.Name + "*"); !strings.Contains(log, secret) {
			t.Errorf("the program has not said %s:\n%s", secret, log)
		}
		for _, look := range []string{
			`systemctl show --all "$0*"`, `systemctl status --no-pager --lines=50 "$0*"`, `journalctl --no-pager -u "$0*"`,
			`unitgen status "$0"; unitgen status --json=short "$0"; unitgen list; unitgen doctor "$0"; unitgen logs "$0"`,
			`cat /proc/[0-9]*/cmdline`, `find /run/unitgen /run/systemd /etc/systemd/system -type f -exec cat {} +`,
		} {
			// What it may not do fails; all that counts is what it shows.
			out, err := a.Exec(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", look, a.Name)
			if err != nil {
				t.Fatal(err)
			}
			if out.Stdout+out.Stderr == "" {
				t.Errorf("%q says nothing at all", look)
			}
			if strings.Contains(out.Stdout+out.Stderr, secret) {
				t.Errorf("%q shows it to nobody:\n%s%s", look, out.Stdout, out.Stderr)
			}
		}
	}

	const first = "hunter2-of-the-start"
	a := apps.New(t, s, "spoken", "--instances=2", "--start-timeout=5s", "--", "/bin/sh", program(first))
	if err := a.Systemctl(t.Context(), "start", a.Name); err == nil {
		t.Error("an app whose program dies has started")
	}
	silent(a, first)

	const second = "hunter2-of-the-release"
	b := apps.Start(t, s, "spoken-release", "--instances=2")
	b.Unitgen("--start-timeout=5s", "--", "/bin/sh", program(second))
	if err := b.Systemctl(t.Context(), "reload", b.Name); err == nil {
		t.Error("a release that dies got in")
	}
	b.AwaitStatus("rollout failed")
	silent(b, second)
}
