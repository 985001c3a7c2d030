//go:build integration

package integration

import (
	"fmt"
	"maps"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// TestManager reloads and re-executes PID 1 and restarts the bus under load. Nobody notices, and
// the shim follows the instances still.
func TestManager(t *testing.T) {
	rig.NewestSuite(t, func(t *testing.T, suite string) {
		s := apps.Boot(t, suite)
		a := startApp(t, s, "managed")
		for _, command := range [][]string{
			{"daemon-reload"}, {"daemon-reexec"}, {"restart", "dbus.service"},
		} {
			t.Run(command[0], func(t *testing.T) {
				before, shim := a.pids(a.N), a.PID(a.Shim())
				load := a.load(rig.LoadOptions{})
				a.AwaitOK(load, 200)
				for range times(3) {
					a.MustSystemctl(command...)
					a.AwaitOK(load, 50)
				}
				r := load.Stop()
				a.Lossless(r)
				if now := a.pids(a.N); !maps.Equal(now, before) || a.PID(a.Shim()) != shim {
					t.Errorf("processes = %v, before %v", now, before)
				}
				// Only a shim that hears of it takes the instance off the ring.
				a.MustSystemctl("stop", a.Instance(2))
				a.AwaitStatus(fmt.Sprintf("%d/%d instances up", a.N-1, a.N))
				delete(before, 2)
				a.evenly(a.Addr(), before)
				a.MustSystemctl("start", a.Instance(2))
				a.AwaitUp(a.N)
				a.evenly(a.Addr(), a.pids(a.N))
			})
		}
	})
}
