//go:build integration

package packages

import (
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// testUpgradeLbshim: the balancer goes on as the new program, the instances as they are.
func testUpgradeLbshim(t *testing.T, a *hello) {
	a.system.repack(t, "lbshim", "lbshim-next", "0.1.0-2", "true")
	instances, shims := a.instances(), a.shims()
	a.underLoad(func() {
		a.system.install(t, "lbshim-next")
		a.renewed(shims) // when apt returns, not some time later
	})
	a.same(instances)
	a.runInstalledShim()
	a.awaitUp()
	a.evenly()
}

// testUpgradeLbshimInRollout: the balancer is not replaced before the rollout has ended, as that
// would cut it off.
func testUpgradeLbshimInRollout(t *testing.T, a *hello) {
	instances, shims := a.instances(), a.shims()
	a.underLoad(func() {
		a.MustSystemctl("reload", "--no-block", "hello", "handed-hello")
		a.system.install(t, "lbshim") // the version before
	})
	a.renewed(shims)
	a.renewed(instances)
	a.runInstalledShim()
	a.awaitUp()
}

// testUpgradeToBrokenLbshim: a program that does not run cannot replace the one that does.
func testUpgradeToBrokenLbshim(t *testing.T, a *hello) {
	a.system.repack(t, "lbshim", "lbshim-broken", "0.1.0-3", `printf '#!/bin/sh\nexit 70\n' >usr/lib/unitgen/lbshim-balancer`)
	instances, shims := a.instances(), a.shims()
	var said string
	a.underLoad(func() { said = a.system.install(t, "lbshim-broken") })
	if want := "still run the old program"; !strings.Contains(said, want) {
		t.Errorf("apt does not say %q:\n%s", want, said)
	}
	a.same(shims)
	a.underLoad(func() { a.system.install(t, "lbshim") })
	a.same(instances)
	a.runInstalledShim()
}

// testUpgradeUnitgen: nothing runs by unitgen, and units that an older one has written are as good
// as before.
func testUpgradeUnitgen(t *testing.T, a *hello) {
	a.system.install(t, "unitgen")
	a.system.repack(t, "unitgen", "unitgen-next", "0.1.0-2", "true")
	instances, shims := a.instances(), a.shims()
	a.underLoad(func() { a.system.install(t, "unitgen-next") })
	a.same(instances)
	a.same(shims)
}

// runInstalledShim checks that the balancers' program is the file that is installed.
func (a *hello) runInstalledShim() {
	a.T.Helper()
	for unit, pid := range a.shims() {
		if exe := strings.TrimSpace(a.MustExec(a.T, "readlink", "/proc/"+pid+"/exe")); exe != "/usr/lib/unitgen/lbshim-balancer" {
			a.T.Errorf("%s runs %q", unit, exe)
		}
	}
}

// testUpgradeSystemd has apt put systemd's own package in place anew, whose scripts re-execute PID
// 1.
func testUpgradeSystemd(t *testing.T, a *hello) {
	rig.Long(t, "what it does to apps is the re-execution of PID 1, which package integration proves")
	instances, shims := a.instances(), a.shims()
	program := a.MustExec(t, "stat", "--dereference", "--format=%i", "/proc/1/exe")
	a.underLoad(func() {
		said, status := a.system.apt(t, "install", "--reinstall", strings.TrimSpace(a.MustExec(t, "sh", "-c", "ls /srv/archive/systemd_*.deb")))
		if status != 0 || !strings.Contains(said, "Setting up systemd") {
			t.Errorf("apt-get install --reinstall: exit status %d\n%s", status, said)
		}
	})
	if now := a.MustExec(t, "stat", "--dereference", "--format=%i", "/proc/1/exe"); now == program {
		t.Error("PID 1 still runs the old program")
	}
	a.same(instances)
	a.same(shims)
	a.awaitUp()
	a.evenly()
}
