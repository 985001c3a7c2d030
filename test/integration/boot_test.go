//go:build integration

package integration

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// TestReboot reboots a system with an app that is enabled and one that was, and runs still.
func TestReboot(t *testing.T) {
	rig.NewestSuite(t, func(t *testing.T, suite string) {
		s := apps.Boot(t, suite)
		on, off := startApp(t, s, "on"), startApp(t, s, "off")
		off.MustSystemctl("disable", off.Name)
		if err := s.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if text, err := s.Journal(t.Context(), "on*"); err != nil || strings.Contains(text, "timed out") {
			t.Errorf("journal = %q, %v; want a shutdown without time-outs", text, err)
		}
		on.AwaitUp(on.N)
		on.evenly(on.Addr(), on.pids(on.N))
		conn, err := s.DialContext(t.Context(), "tcp", off.Addr())
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connect to an app that is disabled = %v, want connection refused", err)
			if err == nil {
				conn.Close()
			}
		}
		for _, unit := range []string{off.Shim(), off.Name + ".socket", off.Instance(1)} {
			if got := s.MustShow(t, unit, "ActiveState"); got != "inactive" {
				t.Errorf("%s is %s after the reboot, want inactive", unit, got)
			}
		}
	})
}

// testAddInstance adds an instance and takes it away under load, by systemctl alone.
func testAddInstance(t *testing.T, s *apps.System) {
	a := startApp(t, s, "add")
	before, more := a.pids(a.N), a.N+1
	load := a.load(rig.LoadOptions{})
	slow := a.load(rig.LoadOptions{Path: "/slow?ms=300"})
	a.AwaitOK(load, 200)
	a.MustSystemctl("enable", "--now", a.Instance(more))
	a.AwaitUp(more)
	a.AwaitOK(slow, 20)
	a.AwaitOK(load, 200)
	a.Lossless(load.Stop())
	a.Lossless(slow.Stop())
	a.evenly(a.Addr(), a.pids(more))

	load, slow = a.load(rig.LoadOptions{}), a.load(rig.LoadOptions{Path: "/slow?ms=300"})
	a.AwaitOK(slow, 20)
	a.MustSystemctl("disable", "--now", a.Instance(more))
	a.AwaitStatus(fmt.Sprintf("%d/%d instances up", a.N, more))
	a.AwaitOK(load, 200)
	a.AwaitOK(slow, 20)
	a.Lossless(load.Stop())
	a.Lossless(slow.Stop())
	if after := a.pids(a.N); !maps.Equal(after, before) {
		t.Errorf("processes = %v, before %v", after, before)
	}
	a.evenly(a.Addr(), before)
}
