//go:build integration

package rollout

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testBroken tries releases that are no good: each reload fails with its reason, and nobody but the extra instance was
// touched. A good one then goes live as if nothing had been.
func testBroken(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "broken", "--start-timeout", "3s", "--env", "APP_VERSION=1")
	pids := a.PIDs()
	for _, release := range []struct {
		name    string
		command []string
		reasons []string
	}{
		{"ends at boot", []string{"/bin/sh", "-c", "echo no such table >&2; exit 3"},
			[]string{"did not get ready", "exit status 3", "no such table"}},
		{"never takes its socket", []string{"/bin/sleep", "600"},
			[]string{"did not get ready", "did not take its socket", "--kind=port"}},
		{"crashes after 2 s", []string{"/bin/sh", "-c", apps.CServer + " & sleep 2; echo out of ideas >&2; exit 4"},
			[]string{"was ready and then ended", "out of ideas"}},
	} {
		load := a.Load(rig.LoadOptions{Rate: 100, Want: "version=1"})
		keep := a.Load(rig.LoadOptions{Clients: 20, Rate: 20, KeepAlive: true, Want: "version=1"})
		a.Unitgen(append([]string{"--"}, release.command...)...)
		began := time.Now()
		refuseReload(a, release.reasons...)
		t.Logf("%s: refused after %s", release.name, time.Since(began).Round(time.Millisecond))
		if now := a.PIDs(); !maps.Equal(now, pids) {
			t.Errorf("%s: processes = %v, before %v", release.name, now, pids)
		}
		checkNoExtra(a)
		a.AwaitOK(load, 50)
		a.Lossless(load.Stop())
		a.Lossless(keep.Stop())
	}
	a.Unitgen("--env", "APP_VERSION=2", "--", apps.Server)
	a.Reload()
	a.Serves("version=2")
	checkNoExtra(a)
	if text := a.MustShow(t, a.Shim(), "StatusText"); strings.Contains(text, "rollout") {
		t.Errorf("status after a good reload: %q", text)
	}
}

// refuseReload reloads the app, which must fail and say why in the status line and in the journal.
func refuseReload(a *apps.App, reasons ...string) {
	a.T.Helper()
	out, err := a.Exec(a.T.Context(), "systemctl", "reload", a.Name)
	if err != nil || out.Status == 0 {
		a.T.Fatalf("reload = %+v, %v; want an exit status other than 0", out, err)
	}
	status, log := a.MustShow(a.T, a.Shim(), "StatusText"), a.Log(a.Shim())
	for _, reason := range reasons {
		if !strings.Contains(status, reason) || !strings.Contains(log, reason) {
			a.T.Errorf("%q is missing in the status line or in the journal:\n%s\n%s", reason, status, log)
		}
	}
	if p, err := a.Properties(a.T.Context(), a.Shim()); err != nil || p["ActiveState"] != "active" || p["ReloadResult"] != "exit-code" {
		a.T.Errorf("after the reload: %s ReloadResult=%s, %v", p, p["ReloadResult"], err)
	}
}

// testHangsInStop goes from a release that ignores its stop signal to a good one, and from there back: the reload waits
// as long as systemd does, then goes on.
func testHangsInStop(t *testing.T, s *apps.System) {
	deaf := []string{"--", "/bin/sh", "-c", "trap '' TERM; exec " + apps.CServer}
	a := apps.Start(t, s, "deaf", append([]string{"-p", "TimeoutStopSec=3s", "--soak", "1s"}, deaf...)...)
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
