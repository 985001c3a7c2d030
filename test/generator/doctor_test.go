//go:build integration

package generator

import (
	"fmt"
	"strings"
	"testing"
)

// testDoctor has doctor look at an app that runs, in which it finds nothing, and at one thing after
// another that is broken. What it says to do mends it.
func testDoctor(t *testing.T, s *system) {
	port := s.newPort()
	s.removeLater(t, "patient")
	s.unitgen(t, "patient", "--instances=2", "--now", listenOption(port), "--", server)
	s.awaitUp(t, "patient", 2)
	s.healthy(t)

	dropIn := units + "/patient@.service.d/mine.conf"
	s.later(t, "rm", "-rf", units+"/patient@.service.d")
	s.MustExec(t, "mkdir", "-p", units+"/patient@.service.d")
	s.MustWriteFile(t, dropIn, "[Service]\nExecStop=\nNice=3\n", 0o644)
	s.found(t, "patient: "+dropIn+" sets ExecStop=: an instance is stopped without a drain: ${EDITOR:-vi} "+dropIn)
	s.MustWriteFile(t, dropIn, "[Service]\nNice=3\n", 0o644)
	s.healthy(t)

	s.MustExec(t, "sed", "-i", "s/^RestartSec=.*/RestartSec=1h/", units+"/patient@.service")
	s.found(t, "patient: 1 of its files differ from what this unitgen writes: unitgen patient")
	s.unitgen(t, "patient")
	s.healthy(t)

	s.MustExec(t, "systemctl", "stop", "patient")
	s.healthy(t)
	s.later(t, "systemctl", "stop", "thief.socket")
	s.MustExec(t, "systemd-run", "--unit=thief", fmt.Sprintf("--socket-property=ListenStream=%d", port), "--", "/bin/sleep", "infinity")
	s.found(t, fmt.Sprintf("patient: thief.socket holds port %d, so the app cannot start: ss -ltnp 'sport = :%[1]d'", port))
	s.MustExec(t, "systemctl", "stop", "thief.socket")
	s.healthy(t)

	s.later(t, "sh", "-c", "test -x "+lbshim+" || mv "+lbshim+".away "+lbshim)
	s.MustExec(t, "mv", lbshim, lbshim+".away")
	s.found(t, "machine: find "+lbshim+": it is not installed, and no app can run without it: make install")
	s.MustExec(t, "mv", lbshim+".away", lbshim)

	s.MustExec(t, "sh", "-c", "cp /etc/passwd /etc/passwd.away && sed -i /^lbshim:/d /etc/passwd")
	s.later(t, "sh", "-c", "cp /etc/passwd.away /etc/passwd")
	s.found(t, "machine: find user lbshim: there is none, and this machine's D-Bus daemon does not accept dynamic users: systemd-sysusers /usr/lib/sysusers.d/unitgen.conf")
	s.MustExec(t, "cp", "/etc/passwd.away", "/etc/passwd")
	s.healthy(t)
}

// healthy checks that doctor finds nothing of patient or the machine, which steers.
func (s *system) healthy(t *testing.T) {
	t.Helper()
	out := s.run(t, "unitgen", "doctor", "patient")
	if out.Status != 0 || out.Stdout != "" || !strings.Contains(out.Stderr, "Steering on this kernel: eBPF, spread exact") {
		t.Errorf("doctor = %d\n%s%s", out.Status, out.Stdout, out.Stderr)
	}
}

// found checks that doctor finds just one thing.
func (s *system) found(t *testing.T, line string) {
	t.Helper()
	if out := s.run(t, "unitgen", "doctor", "patient"); out.Status != 1 || strings.TrimSuffix(out.Stdout, "\n") != line {
		t.Errorf("doctor = %d\n%s%swant 1\n%s", out.Status, out.Stdout, out.Stderr, line)
	}
}
