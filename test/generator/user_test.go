//go:build integration

package generator

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// testUserUnits runs an app below the manager of a user who lingers: created, scaled, served and
// removed without root.
func testUserUnits(t *testing.T, s *system) {
	const uid = "1234"
	s.MustExec(t, "useradd", "--create-home", "--uid="+uid, "alice")
	s.later(t, "userdel", "--force", "--remove", "alice")
	alice := []string{"setpriv", "--reuid=alice", "--regid=alice", "--init-groups", "--", "env", "HOME=/home/alice", "XDG_RUNTIME_DIR=/run/user/" + uid}
	port := s.newPort()
	create := []string{"mine", "--user-units", "--instances=2", "--now", listenOption(port), "--env=A=$x %i \"q\"", "--", server}

	// Before she lingers there is no manager of hers.
	out := s.run(t, append(append(alice, "unitgen"), create...)...)
	checkRefusal(t, out, 1, []string{`connect to systemd: `}, create)
	if want := "hint: loginctl enable-linger alice"; !strings.Contains(out.Stderr, want) {
		t.Errorf("says %q, want %q", out.Stderr, want)
	}

	s.MustExec(t, "loginctl", "enable-linger", "alice")
	s.later(t, "loginctl", "disable-linger", "alice")
	s.MustWait(t, limit, "user@"+uid+".service", func(p rig.Properties) bool { return p["ActiveState"] == "active" })
	as := func(argv ...string) string {
		t.Helper()
		out := s.run(t, append(alice, argv...)...)
		if out.Status != 0 {
			log := s.run(t, append(alice, "journalctl", "--user", "--no-pager", "--lines=40")...)
			t.Fatalf("as alice, %q = %+v\n%s", argv, out, log.Stdout+s.MustExec(t, "journalctl", "--no-pager", "--lines=60"))
		}
		return out.Stdout
	}
	system := s.tree(t, units)
	as(append([]string{"unitgen"}, create...)...)
	s.checkUserApp(t, as, port, 2)
	pid := strings.TrimSpace(as("systemctl", "--user", "show", "--value", "--property=MainPID", "mine@1"))
	if environ := s.MustExec(t, "cat", "/proc/"+pid+"/environ"); !strings.Contains(environ, "\x00A=$x %i \"q\"\x00") {
		t.Errorf("environment = %q", environ)
	}
	load := s.load(port)
	awaitOK(t, load, 50)
	as("unitgen", "scale", "mine", "4", "--user-units")
	s.checkUserApp(t, as, port, 4)
	awaitOK(t, load, 50)
	as("unitgen", "scale", "mine", "1", "--user-units")
	s.checkUserApp(t, as, port, 1)
	awaitOK(t, load, 50)
	if r := load.Stop(); r.Failed() > 0 {
		t.Errorf("load: %s", r)
	}
	if now := strings.TrimSpace(as("systemctl", "--user", "show", "--value", "--property=MainPID", "mine@1")); now != pid {
		t.Errorf("the process of mine@1 is %s after scaling, was %s", now, pid)
	}

	healthy := append(alice, "unitgen", "doctor", "--user-units", "mine")
	if out := s.run(t, healthy...); out.Status != 0 || out.Stdout != "" {
		t.Errorf("doctor = %+v", out)
	}
	// loginctl would end her manager too.
	s.MustExec(t, "mv", "/var/lib/systemd/linger/alice", "/root/alice")
	if out, want := s.run(t, healthy...), "machine: your units end when you log out: loginctl enable-linger alice\n"; out.Status != 1 || out.Stdout != want {
		t.Errorf("doctor = %+v, want %q", out, want)
	}
	s.MustExec(t, "mv", "/root/alice", "/var/lib/systemd/linger/alice")

	as("unitgen", "remove", "mine", "--user-units")
	s.checkUserAppGone(t, as, port)
	if after := s.tree(t, units); after != system {
		t.Errorf("the system's units:\n%s\nbefore\n%s", after, system)
	}
}

// awaitUserUp is awaitUp for a user's app. Each look is a process of its own, as the user's manager
// sends no signals here.
func awaitUserUp(t *testing.T, as func(...string) string, n int) {
	t.Helper()
	want := fmt.Sprintf("%d/%d instances up", n, n)
	for deadline := time.Now().Add(limit); ; {
		text := as("systemctl", "--user", "show", "--value", "--property=StatusText", "mine.service")
		if strings.HasPrefix(text, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the balancer says %q, want %q", text, want)
		}
	}
}

// checkUserApp checks that n instances come up and answer, and that list and status say so.
func (s *system) checkUserApp(t *testing.T, as func(...string) string, port, n int) {
	t.Helper()
	awaitUserUp(t, as, n) // a start returns when the first is up
	list := as("systemctl", "--user", "list-units", "--plain", "--no-legend", "--state=active", "mine@*.service")
	if strings.Count(list, "\n") != n {
		t.Errorf("instances:\n%swant %d", list, n)
	}
	if text := s.get(t, port); !strings.HasPrefix(text, "instance=") {
		t.Errorf("the app answers %q", text)
	}
	if got := listedIn(t, as("unitgen", "list", "--user-units", "--json=short")); !slices.Equal(got, []string{fmt.Sprintf("mine active %d/%d %d steer", n, n, port)}) {
		t.Errorf("list = %q, want %d instances", got, n)
	}
	if status := as("unitgen", "status", "mine", "--user-units"); !strings.Contains(status, fmt.Sprintf("%d/%d instances up", n, n)) {
		t.Errorf("status = %s", status)
	}
}

func (s *system) checkUserAppGone(t *testing.T, as func(...string) string, port int) {
	t.Helper()
	if left := as("find", "/home/alice/.config", "-name", "*mine*"); left != "" {
		t.Errorf("left after remove:\n%s", left)
	}
	if list := as("systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", "mine*"); list != "" {
		t.Errorf("units after remove:\n%s", list)
	}
	if list := s.listeners(t, port); list != "" {
		t.Errorf("listeners after remove:\n%s", list)
	}
}
