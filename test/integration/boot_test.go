//go:build integration

package integration

import (
	"errors"
	"maps"
	"strings"
	"syscall"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// TestReboot reboots a system with an app that is enabled and one that was, and runs still.
func TestReboot(t *testing.T) {
	rig.EachSuite(t, func(t *testing.T, suite string) {
		s := boot(t, suite)
		on, off := startApp(t, s, "on"), startApp(t, s, "off")
		off.systemctl("disable", off.name)
		if err := s.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if text, err := s.Journal(t.Context(), "on*"); err != nil || strings.Contains(text, "timed out") {
			t.Errorf("journal = %q, %v; want a shutdown without time-outs", text, err)
		}
		on.awaitUp(4)
		on.evenly(on.addr(), on.pids(4))
		conn, err := s.DialContext(t.Context(), "tcp", off.addr())
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connect to an app that is disabled = %v, want connection refused", err)
			if err == nil {
				conn.Close()
			}
		}
		for _, unit := range []string{off.shim(), off.name + ".socket", off.instance(1)} {
			if got := s.MustShow(t, unit, "ActiveState"); got != "inactive" {
				t.Errorf("%s is %s after the reboot, want inactive", unit, got)
			}
		}
	})
}

// testAddInstance adds an instance and takes it away under load, by systemctl alone.
func testAddInstance(t *testing.T, s *system) {
	a := startApp(t, s, "add")
	before := a.pids(4)
	load := a.load(rig.LoadOptions{})
	slow := a.load(rig.LoadOptions{Path: "/slow?ms=300"})
	a.awaitOK(load, 200)
	a.systemctl("enable", "--now", a.instance(5))
	a.awaitUp(5)
	a.awaitOK(slow, 20)
	a.awaitOK(load, 200)
	a.lossless(load.Stop())
	a.lossless(slow.Stop())
	a.evenly(a.addr(), a.pids(5))

	load, slow = a.load(rig.LoadOptions{}), a.load(rig.LoadOptions{Path: "/slow?ms=300"})
	a.awaitOK(slow, 20)
	a.systemctl("disable", "--now", a.instance(5))
	a.awaitStatus("4/5 instances up")
	a.awaitOK(load, 200)
	a.awaitOK(slow, 20)
	a.lossless(load.Stop())
	a.lossless(slow.Stop())
	if after := a.pids(4); !maps.Equal(after, before) {
		t.Errorf("processes = %v, before %v", after, before)
	}
	a.evenly(a.addr(), before)
}
