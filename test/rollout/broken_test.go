//go:build integration

package rollout

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// crashing is a server that ends when somebody writes to the pipe.
const crashing = apps.CServer + " & read word < " + crashPipe + "; echo out of ideas >&2; exit 4"

const crashPipe = "/srv/crash"

// testBroken tries releases that are no good: each reload fails with its reason, and nobody but the
// extra instance was touched. A good one then goes live as if nothing had been.
func testBroken(t *testing.T, s *apps.System) {
	s.MustExec(t, "mkfifo", "--mode=444", crashPipe)
	a := start(t, s, "broken", "--env", "APP_VERSION=1")
	pids := a.PIDs()
	for _, release := range []struct {
		name    string
		command []string // options, and the program
		status  string   // in the status line, which every user reads: nothing that the program said
		reasons []string // in the journal
	}{
		{"ends at boot", []string{"--", "/bin/sh", "-c", "echo no such table >&2; exit 3"},
			"did not get ready: exit status 3", []string{"did not get ready", "exit status 3", "no such table", "hint: unitgen logs"}},
		{"never takes its socket", []string{"--start-timeout", "3s", "--", "/bin/sleep", "600"},
			"did not get ready: not ready in time", []string{"did not get ready", "it listens nowhere", "--start-timeout="}},
		{"crashes when it was ready", []string{"--start-timeout", "1min", "--soak", "1min", "--", "/bin/sh", "-c", crashing},
			"was ready and then ended", []string{"was ready and then ended", "out of ideas"}},
	} {
		const clients = 8
		load := a.Load(rig.LoadOptions{Clients: clients, Rate: 100, Want: "version=1"})
		keep := a.Load(rig.LoadOptions{Clients: 20, Rate: 20, KeepAlive: true, Want: "version=1"})
		a.Unitgen(release.command...)
		crashed, lost := make(chan error, 1), 0
		if strings.Contains(release.name, "crashes") {
			lost = clients // at most: what it was working on then. Those that are kept are older than it
			go func() { crashed <- crash(a, load) }()
		} else {
			crashed <- nil
		}
		began := time.Now()
		refuseReload(a, release.status, release.reasons...)
		t.Logf("%s: refused after %s", release.name, time.Since(began).Round(time.Millisecond))
		if err := <-crashed; err != nil {
			t.Error(err)
		}
		if now := a.PIDs(); !maps.Equal(now, pids) {
			t.Errorf("%s: processes = %v, before %v", release.name, now, pids)
		}
		checkNoExtra(a)
		a.AwaitOK(load, 50)
		a.LostAtMost(load.Stop(), lost)
		a.Lossless(keep.Stop())
	}
	a.Unitgen("--soak", "1s", "--env", "APP_VERSION=2", "--", apps.Server)
	a.Reload()
	a.Serves("version=2")
	checkNoExtra(a)
	if text := a.MustShow(t, a.Shim(), "StatusText"); strings.Contains(text, "rollout") {
		t.Errorf("status after a good reload: %q", text)
	}
}

// crash ends the extra instance when it is ready and the rollout has had time to see that: as long
// as 300 requests take.
func crash(a *apps.App, load *rig.Load) error {
	ctx, cancel := context.WithTimeout(a.T.Context(), apps.Limit)
	defer cancel()
	_, err := a.WaitFor(ctx, a.Instance(a.N+1), func(p rig.Properties) bool { return p["ActiveState"] == "active" })
	if err != nil {
		return err
	}
	if err := load.WaitOK(ctx, 300); err != nil {
		return err
	}
	_, err = a.Exec(ctx, "sh", "-c", "echo >"+crashPipe)
	return err
}

// refuseReload reloads the app, which must fail, say in the status line how, and in the journal
// why.
func refuseReload(a *apps.App, status string, reasons ...string) {
	a.T.Helper()
	out, err := a.Exec(a.T.Context(), "systemctl", "reload", a.Name)
	if err != nil || out.Status == 0 {
		a.T.Fatalf("reload = %+v, %v; want an exit status other than 0", out, err)
	}
	if text := a.MustShow(a.T, a.Shim(), "StatusText"); !strings.Contains(text, status) || strings.Contains(text, "no such table") {
		a.T.Errorf("the status line is %q, want %q and nothing that the program said", text, status)
	}
	log := a.Log(a.Shim())
	for _, reason := range reasons {
		if !strings.Contains(log, reason) {
			a.T.Errorf("%q is missing in the journal:\n%s", reason, log)
		}
	}
	if p, err := a.Properties(a.T.Context(), a.Shim()); err != nil || p["ActiveState"] != "active" || p["ReloadResult"] != "exit-code" {
		a.T.Errorf("after the reload: %s ReloadResult=%s, %v", p, p["ReloadResult"], err)
	}
}

// testHangsInStop goes from a release that ignores its stop signal to a good one, and from there
// back: the reload waits as long as systemd does, then goes on.
func testHangsInStop(t *testing.T, s *apps.System) {
	deaf := []string{"--", "/bin/sh", "-c", "trap '' TERM; exec " + apps.CServer}
	a := start(t, s, "deaf", append([]string{"--instances=2", "-p", "TimeoutStopSec=3s", "--soak", "100ms"}, deaf...)...)
	load := a.Load(rig.LoadOptions{Rate: 50})
	for _, command := range [][]string{{"--", apps.Server}, deaf, {"--", apps.Server}} {
		a.AwaitOK(load, 50)
		before := a.PIDs()
		a.Unitgen(command...)
		began := time.Now()
		a.Reload()
		t.Logf("to %v: %s", command, time.Since(began).Round(time.Millisecond))
		for number, pid := range a.PIDs() {
			if pid == before[number] {
				t.Errorf("instance %d is not new", number)
			}
		}
		checkNoExtra(a)
	}
	a.Lossless(load.Stop())
	if !strings.Contains(a.Log(a.Instance(1)), "timed out. Killing") {
		t.Error("no instance was deaf to its stop signal")
	}
}
