//go:build integration

package integration

import (
	"maps"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// TestManager reloads and re-executes PID 1 and restarts the bus under load. Nobody notices, and the shim follows the
// instances still.
func TestManager(t *testing.T) {
	rig.EachSuite(t, func(t *testing.T, suite string) {
		s := boot(t, suite)
		a := startApp(t, s, "managed")
		for _, command := range [][]string{
			{"daemon-reload"}, {"daemon-reexec"}, {"restart", "dbus.service"},
		} {
			t.Run(command[0], func(t *testing.T) {
				before, shim := a.pids(4), a.pid(a.shim())
				load := a.load(rig.LoadOptions{})
				a.awaitOK(load, 200)
				for range 3 {
					a.systemctl(command...)
					a.awaitOK(load, 50)
				}
				r := load.Stop()
				a.lossless(r)
				if now := a.pids(4); !maps.Equal(now, before) || a.pid(a.shim()) != shim {
					t.Errorf("processes = %v, before %v", now, before)
				}
				// Only a shim that hears of it takes the instance off the ring.
				a.systemctl("stop", a.instance(2))
				a.awaitStatus("3/4 instances up")
				delete(before, 2)
				a.evenlyOver(300, a.addr(), before)
				a.systemctl("start", a.instance(2))
				a.awaitUp(4)
				a.evenly(a.addr(), a.pids(4))
			})
		}
	})
}
