//go:build integration

package rollout

import (
	"maps"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testConfig changes options of the shim by a drop-in, as "systemctl edit" does, and reloads: the
// same process takes them over.
func testConfig(t *testing.T, s *apps.System) {
	a := start(t, s, "edited", "--soak", "1s", "-p", "KillSignal=SIGKILL")
	shim := a.PID(a.Shim())
	load := a.Load(rig.LoadOptions{Rate: 50})
	edit := func(options string) {
		a.DropIn(a.Shim(), "[Service]\nExecStart=\nExecStart="+apps.Lbshim+" serve "+a.Name+" "+options+"\n")
	}
	edit("--strategy=first --drain-timeout=1s")
	a.Reload()
	a.AwaitUp(a.N)
	r := a.Load(rig.LoadOptions{Requests: 30}).Wait()
	if a.Lossless(r); r.Instances["1"] != 30 {
		t.Errorf("connections with strategy first: %v, want all at instance 1", r.Instances)
	}
	send(a, a.Open(1), "/slow?ms=600000")
	a.MustSystemctl("restart", a.Instance(1))
	if log := a.Log(a.Shim()); !strings.Contains(log, "timed_out=true") {
		t.Errorf("the drain of an endless request did not end by the new time-out:\n%s", log)
	}

	// What a running process cannot take over is refused, and nothing is touched.
	a.AwaitUp(a.N)
	pids := a.PIDs()
	edit("--strategy=least-connections")
	refuseReload(a, "least-connections", "CAP_NET_ADMIN", "systemctl restart")
	if now := a.PIDs(); !maps.Equal(now, pids) {
		t.Errorf("processes = %v, before the reload that was refused %v", now, pids)
	}

	if now := a.PID(a.Shim()); now != shim {
		t.Errorf("the shim is process %s, before it was %s", now, shim)
	}

	edit("--idle-exit=5s")
	a.Lossless(load.Stop())
	a.Reload()
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	a.Lossless(a.Load(rig.LoadOptions{Requests: 1}).Wait()) // starts it again
}

// testSharedDirectory gives the instances one directory below /run: it outlives each of them.
func testSharedDirectory(t *testing.T, s *apps.System) {
	a := start(t, s, "sharing", "--soak", "100ms", "-p", "RuntimeDirectory=sharing-files")
	a.MustExec(t, "touch", "/run/sharing-files/mark")
	a.MustSystemctl("restart", a.Instance(1))
	a.MustExec(t, "test", "-e", "/run/sharing-files/mark")
	healthyReload(a)
	a.MustExec(t, "test", "-e", "/run/sharing-files/mark")
}
