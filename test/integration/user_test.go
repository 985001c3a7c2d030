//go:build integration

package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// userApp is an app under the service manager of a user, who may not load eBPF programs: the kernel
// spreads connections at random then.
type userApp struct {
	testApp
	uid string
}

const user = "alice"

func newUserApp(t *testing.T, suite string) *userApp {
	t.Helper()
	s := apps.Boot(t, suite)
	s.MustExec(t, "useradd", "--create-home", user)
	s.MustExec(t, "loginctl", "enable-linger", user)
	uid := strings.TrimSpace(s.MustExec(t, "id", "-u", user))
	s.MustWait(t, apps.Limit, "user@"+uid+".service", func(p rig.Properties) bool { return p["ActiveState"] == "active" })
	a := &userApp{testApp{&apps.App{System: s, T: t, Name: "web", Port: s.NewPort(), N: 4, Runtime: "/run/user/" + uid}}, uid}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := s.Exec(context.Background(), "journalctl", "--no-pager", "--quiet", "--output=short-precise", "_UID="+uid)
			t.Logf("journal of %s (%v):\n%s", user, err, out.Stdout)
		}
	})
	a.run("unitgen", a.Name, "--user-units", "--instances=4", fmt.Sprintf("--listen=%d", a.Port), "--", apps.Server)
	return a
}

// run runs a command as the user.
func (a *userApp) run(argv ...string) string {
	a.T.Helper()
	return a.MustExec(a.T, append([]string{"runuser", "-u", user, "--", "env", "HOME=/home/" + user, "XDG_RUNTIME_DIR=" + a.Runtime}, argv...)...)
}

func (a *userApp) AwaitUp(n int) {
	a.T.Helper()
	line := fmt.Sprintf("%d/4 instances up", n)
	a.awaitShim(line, func(s control.Status) bool { return strings.HasPrefix(s.Line, line) })
}

// kill kills a unit's process under load and waits until it is replaced.
func (a *userApp) kill(unit string, load *rig.Load) {
	a.T.Helper()
	a.AwaitOK(load, 200)
	before := a.PID(unit)
	a.MustExec(a.T, "kill", "-s", "KILL", before)
	a.AwaitOK(load, 200)
	a.awaitShim("other process", func(control.Status) bool { now := a.PID(unit); return now != "0" && now != before })
	a.AwaitUp(a.N)
}

func (a *userApp) PID(unit string) string {
	a.T.Helper()
	return strings.TrimSpace(a.run("systemctl", "--user", "show", "--value", "--property=MainPID", unit))
}

func TestUserUnits(t *testing.T) {
	rig.NewestSuite(t, func(t *testing.T, suite string) {
		a := newUserApp(t, suite)
		a.run("systemctl", "--user", "start", "web.socket")
		load := a.load(rig.LoadOptions{})
		a.run("systemctl", "--user", "start", "web")
		a.AwaitUp(a.N)
		if s := a.Status(); !strings.HasPrefix(s.Reason, "classic BPF") {
			t.Errorf("path is %s, %s; want classic BPF", s.Path, s.Reason)
		}
		a.kill("web.service", load)
		r := load.Stop()
		a.Lossless(r)
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
