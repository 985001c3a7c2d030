//go:build integration

package packages

import (
	"strings"
	"testing"
)

// testUpgradeLbshim: the balancer goes on as the new program, the instances as they are.
func testUpgradeLbshim(t *testing.T, a *hello) {
	a.system.repack(t, "lbshim", "lbshim-next", "0.1.0-2", "true")
	before, shim := a.PIDs(), a.PID(a.Shim())
	a.underLoad(func() { a.system.install(t, "lbshim-next") })
	if now := a.PID(a.Shim()); now == shim || now == "0" {
		t.Errorf("the balancer still has process %s", now)
	}
	a.sameInstances(before)
	a.runsInstalledShim()
	a.AwaitUp(4)
	a.Evenly()
}

// testUpgradeLbshimInRollout: the balancer is not replaced before the rollout has ended, as that would cut it off.
func testUpgradeLbshimInRollout(t *testing.T, a *hello) {
	before, shim := a.PIDs(), a.PID(a.Shim())
	a.underLoad(func() {
		a.MustSystemctl("reload", "--no-block", "hello")
		a.system.install(t, "lbshim") // the version before
	})
	if now := a.PID(a.Shim()); now == shim || now == "0" {
		t.Errorf("the balancer still has process %s", now)
	}
	for i, pid := range before {
		if now := a.PID(a.Instance(i)); now == pid {
			t.Errorf("the rollout did not reach instance %d", i)
		}
	}
	a.runsInstalledShim()
	a.AwaitUp(a.N)
}

// testUpgradeToBrokenLbshim: a program that does not run cannot replace the one that does.
func testUpgradeToBrokenLbshim(t *testing.T, a *hello) {
	a.system.repack(t, "lbshim", "lbshim-broken", "0.1.0-3", `printf '#!/bin/sh\nexit 70\n' >usr/lib/unitgen/lbshim`)
	before, shim := a.PIDs(), a.PID(a.Shim())
	var said string
	a.underLoad(func() { said = a.system.install(t, "lbshim-broken") })
	if want := "still run the old program"; !strings.Contains(said, want) {
		t.Errorf("apt does not say %q:\n%s", want, said)
	}
	if now := a.PID(a.Shim()); now != shim {
		t.Errorf("the balancer has process %s, before it was %s", now, shim)
	}
	a.underLoad(func() { a.system.install(t, "lbshim") })
	a.sameInstances(before)
	a.runsInstalledShim()
}

// testUpgradeUnitgen: nothing runs by unitgen, and units that an older one has written are as good as before.
func testUpgradeUnitgen(t *testing.T, a *hello) {
	a.system.install(t, "unitgen")
	a.system.repack(t, "unitgen", "unitgen-next", "0.1.0-2", "true")
	before, shim := a.PIDs(), a.PID(a.Shim())
	a.underLoad(func() { a.system.install(t, "unitgen-next") })
	a.sameInstances(before)
	if now := a.PID(a.Shim()); now != shim {
		t.Errorf("the balancer has process %s, before it was %s", now, shim)
	}
}

func (a *hello) sameInstances(before map[int]string) {
	a.T.Helper()
	for i, pid := range before {
		if now := a.PID(a.Instance(i)); now != pid {
			a.T.Errorf("instance %d has process %s, before it was %s", i, now, pid)
		}
	}
}

// runsInstalledShim checks that the balancer's program is the file that is installed.
func (a *hello) runsInstalledShim() {
	a.T.Helper()
	pid := a.PID(a.Shim())
	if exe := strings.TrimSpace(a.MustExec(a.T, "readlink", "/proc/"+pid+"/exe")); exe != "/usr/lib/unitgen/lbshim" {
		a.T.Errorf("the balancer runs %q", exe)
	}
}

// testUpgradeSystemd has apt put systemd's own package in place anew, whose scripts re-execute PID 1.
func testUpgradeSystemd(t *testing.T, a *hello) {
	before, shim := a.PIDs(), a.PID(a.Shim())
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
	a.sameInstances(before)
	if now := a.PID(a.Shim()); now != shim {
		t.Errorf("the balancer has process %s, before it was %s", now, shim)
	}
	a.AwaitUp(a.N)
	a.Evenly()
}
