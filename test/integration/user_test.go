//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/shim"
	"github.com/unitgen/unitgen/test/rig"
)

// TestUserUnits runs an app under the service manager of a user, who may not load eBPF programs: the kernel spreads
// connections at random then.
func TestUserUnits(t *testing.T) {
	rig.EachSuite(t, func(t *testing.T, suite string) {
		s := boot(t, suite)
		s.MustExec(t, "useradd", "--create-home", "alice")
		s.MustExec(t, "loginctl", "enable-linger", "alice")
		uid := strings.TrimSpace(s.MustExec(t, "id", "-u", "alice"))
		s.MustWait(t, limit, "user@"+uid+".service", func(p rig.Properties) bool { return p["ActiveState"] == "active" })
		alice := func(argv ...string) string {
			t.Helper()
			return s.MustExec(t, append([]string{"runuser", "-u", "alice", "--", "env", "HOME=/home/alice", "XDG_RUNTIME_DIR=/run/user/" + uid}, argv...)...)
		}
		a := &testApp{system: s, t: t, name: "web", port: s.newPort(), runtime: "/run/user/" + uid}
		alice("unitgen", "web", "--user-units", "--instances=4", fmt.Sprintf("--listen=%d", a.port), "--", server)
		alice("systemctl", "--user", "start", "web.socket")
		load := a.load(rig.LoadOptions{})
		alice("systemctl", "--user", "start", "web")
		t.Cleanup(func() {
			if t.Failed() {
				out, err := s.Exec(context.Background(), "journalctl", "--no-pager", "--quiet", "--output=short-precise", "_UID="+uid)
				t.Logf("journal of web (%v):\n%s", err, out.Stdout)
			}
		})
		up := func(n int) {
			t.Helper()
			a.awaitShim(fmt.Sprintf("%d instances up", n), func(s shim.Status) bool {
				return strings.HasPrefix(s.Line, fmt.Sprintf("%d/4 instances up", n))
			})
		}
		up(4)
		if s := a.status(); !strings.HasPrefix(s.Reason, "classic BPF") {
			t.Errorf("path is %s, %s; want classic BPF", s.Path, s.Reason)
		}

		kill := func(unit string) {
			t.Helper()
			a.awaitOK(load, 200)
			s.MustExec(t, "kill", "-s", "KILL", strings.TrimSpace(alice("systemctl", "--user", "show", "--value", "--property=MainPID", unit)))
			a.awaitOK(load, 200)
			up(4)
		}
		kill("web.service")
		r := load.Stop()
		a.lossless(r)
		if len(r.Instances) != 4 {
			t.Errorf("connections by instance = %v, want some at each of 4", r.Instances)
		}

		const clients = 8
		load = a.load(rig.LoadOptions{Clients: clients})
		kill("web@2.service")
		r = load.Stop()
		if lost := r.Failures[rig.EOF].Count + r.Failures[rig.Reset].Count; r.Failed() > lost || lost > clients {
			t.Errorf("load: %s; want at most %d failures, of requests that the instance was working on", r, clients)
		}

		alice("systemctl", "--user", "stop", "web")
		a.awaitRefused() // a classic program cannot refuse: the port is open until the last of the sockets is closed
	})
}
