//go:build integration

package generator

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// uidOf is the user that the main process of a unit runs as.
func (s *system) uidOf(t *testing.T, unit string) int {
	t.Helper()
	pid := s.pidOf(t, unit)
	uid, err := strconv.Atoi(strings.TrimSpace(s.MustExec(t, "stat", "--format=%u", "/proc/"+pid)))
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

func (s *system) pidOf(t *testing.T, unit string) string {
	t.Helper()
	return strings.TrimSpace(s.MustExec(t, "systemctl", "show", "--value", "--property=MainPID", unit))
}

// testAccounts names apps after accounts: none runs as one, and a state directory stays with an app
// whose user gets a name.
func testAccounts(t *testing.T, s *system) {
	s.MustExec(t, "useradd", "--create-home", "alice")
	s.later(t, "userdel", "--force", "--remove", "alice")
	for _, name := range []string{"root", "alice", "proxy", "backup", "lbshim"} {
		s.MustExec(t, "id", name)
		s.removeLater(t, name)
		s.unitgen(t, name, "--now", listenOption(s.newPort()), "--", server)
		s.awaitUp(t, name, 1)
		if uid := s.uidOf(t, name+"@1"); uid < 61184 || uid > 65519 {
			t.Errorf("app %s runs as user %d, want a dynamic one", name, uid)
		}
	}
	t.Run("taken", func(t *testing.T) {
		s.MustExec(t, "useradd", "ug-taken")
		s.later(t, "userdel", "ug-taken")
		s.refused(t, 2, []string{`the app would run as "ug-taken", which exists here already`}, "taken", listenOption(s.newPort()), "--", server)
	})
	t.Run("state", func(t *testing.T) {
		s.removeLater(t, "keeper")
		s.unitgen(t, "keeper", "--now", "--instances=2", "-p", "StateDirectory=keeper", listenOption(s.newPort()), "--", server)
		s.awaitUp(t, "keeper", 2)
		// As an unitgen wrote it that did not name users.
		s.MustExec(t, "sed", "-i", "/^User=/d", units+"/keeper@.service")
		s.MustExec(t, "systemctl", "daemon-reload")
		s.MustExec(t, "systemctl", "restart", "keeper")
		s.awaitUp(t, "keeper", 2)
		s.MustExec(t, "nsenter", "--target="+s.pidOf(t, "keeper@1"), "--mount", "setpriv",
			fmt.Sprintf("--reuid=%d", s.uidOf(t, "keeper@1")), "--clear-groups", "sh", "-c", "echo mine > /var/lib/keeper/file")
		if out := s.unitgen(t, "keeper"); !strings.Contains(out.Stderr, "systemctl restart keeper") {
			t.Errorf("says %q, want that a restart is needed", out.Stderr)
		}
		s.MustExec(t, "systemctl", "restart", "keeper")
		s.awaitUp(t, "keeper", 2)
		owner := strings.TrimSpace(s.MustExec(t, "stat", "--format=%u", "/var/lib/private/keeper/file"))
		for _, unit := range []string{"keeper@1", "keeper@2"} {
			if uid := strconv.Itoa(s.uidOf(t, unit)); uid != owner {
				t.Errorf("%s runs as %s, and its files are those of %s", unit, uid, owner)
			}
		}
	})
}

// testSiblings lets one instance open what another one has: with a user for each it can open
// nothing.
func testSiblings(t *testing.T, s *system) {
	attacks := []string{"cat /proc/$1/environ", "ls /proc/$1/root/tmp", "ls -l /proc/$1/fd", "kill -0 $1", "true < /proc/$1/mem"}
	for _, tt := range []struct {
		name string
		own  bool
	}{{"shared", false}, {"separate", true}} {
		s.removeLater(t, tt.name)
		args := []string{tt.name, "--now", "--instances=2", "-p", "ProtectProc=default", listenOption(s.newPort())}
		if tt.own {
			args = append(args, "--user-per-instance")
		}
		s.unitgen(t, append(args, "--", server)...)
		s.awaitUp(t, tt.name, 2)
		one, two := s.uidOf(t, tt.name+"@1"), s.uidOf(t, tt.name+"@2")
		if (one != two) != tt.own {
			t.Errorf("%s: users are %d and %d", tt.name, one, two)
		}
		opened := 0
		for _, attack := range attacks {
			out := s.run(t, "setpriv", fmt.Sprintf("--reuid=%d", one), fmt.Sprintf("--regid=%d", one), "--clear-groups", "sh", "-c", attack, "sh", s.pidOf(t, tt.name+"@2"))
			if out.Status == 0 {
				opened++
			}
			if tt.own && out.Status == 0 {
				t.Errorf("%q opens a sibling", attack)
			}
		}
		if !tt.own && opened < len(attacks)-1 { // the last one is up to Yama's ptrace_scope
			t.Errorf("one of the same user opens %d of %d: the test cannot fail", opened, len(attacks))
		}
	}
}

// testSocketPath gives unitgen paths where something is: no file is lost, and no other server's
// socket.
func testSocketPath(t *testing.T, s *system) {
	s.MustWriteFile(t, "/srv/precious", "precious", 0o644)
	s.refused(t, 2, []string{`--listen=/srv/precious exists and is no socket`}, "path", "--listen=/srv/precious", "--now", "--", server)
	if text, err := s.ReadFile("/srv/precious"); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
	s.later(t, "systemctl", "stop", "other.socket")
	s.MustExec(t, "systemd-run", "--quiet", "--unit=other", "--socket-property=ListenStream=/run/other.sock", "/bin/true")
	s.refused(t, 2, []string{`--listen=/run/other.sock is in use by another program`}, "path", "--listen=/run/other.sock", "--", server)
	s.MustExec(t, "systemctl", "stop", "other.socket") // which leaves the path behind
	s.removeLater(t, "path")
	s.unitgen(t, "path", "--listen=/run/other.sock", "--now", "--kind=handoff", "--", server)
	s.awaitUp(t, "path", 1)
}
