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

// userApp is an app under the service manager of a user, who may not load eBPF programs: the kernel spreads connections
// at random then.
type userApp struct {
	testApp
	uid string
}

const user = "alice"

func newUserApp(t *testing.T, suite string) *userApp {
	t.Helper()
	s := boot(t, suite)
	s.MustExec(t, "useradd", "--create-home", user)
	s.MustExec(t, "loginctl", "enable-linger", user)
	uid := strings.TrimSpace(s.MustExec(t, "id", "-u", user))
	s.MustWait(t, limit, "user@"+uid+".service", func(p rig.Properties) bool { return p["ActiveState"] == "active" })
	a := &userApp{testApp{system: s, t: t, name: "web", port: s.newPort(), runtime: "/run/user/" + uid}, uid}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := s.Exec(context.Background(), "journalctl", "--no-pager", "--quiet", "--output=short-precise", "_UID="+uid)
			t.Logf("journal of %s (%v):\n%s", user, err, out.Stdout)
		}
	})
	a.run("unitgen", a.name, "--user-units", "--instances=4", fmt.Sprintf("--listen=%d", a.port), "--", server)
	return a
}

// run runs a command as the user.
func (a *userApp) run(argv ...string) string {
	a.t.Helper()
	return a.MustExec(a.t, append([]string{"runuser", "-u", user, "--", "env", "HOME=/home/" + user, "XDG_RUNTIME_DIR=" + a.runtime}, argv...)...)
}

func (a *userApp) awaitUp(n int) {
	a.t.Helper()
	line := fmt.Sprintf("%d/4 instances up", n)
	a.awaitShim(line, func(s shim.Status) bool { return strings.HasPrefix(s.Line, line) })
}

// kill kills a unit's process under load and waits until it is replaced.
func (a *userApp) kill(unit string, load *rig.Load) {
	a.t.Helper()
	a.awaitOK(load, 200)
	before := a.pid(unit)
	a.MustExec(a.t, "kill", "-s", "KILL", before)
	a.awaitOK(load, 200)
	a.awaitShim("other process", func(shim.Status) bool { now := a.pid(unit); return now != "0" && now != before })
	a.awaitUp(4)
}

func (a *userApp) pid(unit string) string {
	a.t.Helper()
	return strings.TrimSpace(a.run("systemctl", "--user", "show", "--value", "--property=MainPID", unit))
}

func TestUserUnits(t *testing.T) {
	rig.EachSuite(t, func(t *testing.T, suite string) {
		a := newUserApp(t, suite)
		a.run("systemctl", "--user", "start", "web.socket")
		load := a.load(rig.LoadOptions{})
		a.run("systemctl", "--user", "start", "web")
		a.awaitUp(4)
		if s := a.status(); !strings.HasPrefix(s.Reason, "classic BPF") {
			t.Errorf("path is %s, %s; want classic BPF", s.Path, s.Reason)
		}
		a.kill("web.service", load)
		r := load.Stop()
		a.lossless(r)
		if len(r.Instances) != 4 {
			t.Errorf("connections by instance = %v, want some at each of 4", r.Instances)
		}

		const clients = 8
		load = a.load(rig.LoadOptions{Clients: clients})
		a.kill("web@2.service", load)
		a.lostOnly(clients, load.Stop())

		a.run("systemctl", "--user", "stop", "web")
		a.awaitRefused() // a classic program cannot refuse: the port is open until the last of the sockets is closed
		if units := a.run("systemctl", "--user", "list-units", "--plain", "--no-legend", "--state=active", "web.*", "web[@-]*.service"); units != "" {
			t.Errorf("units of a stopped app:\n%s", units)
		}
	})
}
