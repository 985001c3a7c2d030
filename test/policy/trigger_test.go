//go:build integration

package policy

import (
	"strconv"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testMemory lets one instance grow above each of its limits: by the lower one it is drained and
// started again, by the upper one the kernel ends it.
func testMemory(t *testing.T, s *apps.System) {
	a := apps.New(t, s, "heavy", "--memory-reload", "64M", "--max-memory", "200M", "-p", "MemorySwapMax=0", "--restart-delay", "100ms",
		"--", "/usr/bin/python3", moodyFile)
	a.DropIn(a.Name+"-memory.timer", "[Timer]\nOnActiveSec=\nOnUnitInactiveSec=\nOnActiveSec=1s\nOnUnitInactiveSec=1s\nAccuracySec=10ms\n")
	a.MustSystemctl("start", a.Name)
	a.AwaitUp(a.N)
	load := a.Load(rig.LoadOptions{Rate: 50})
	before := a.PIDs()
	slow := at(a, 2)
	if err := slow.Send("/slow?ms=4000"); err != nil {
		t.Fatal(err)
	}
	if _, err := at(a, 2).Get("/grow?mb=80"); err != nil {
		t.Fatal(err)
	}
	if instance, err := slow.Receive(); err != nil || instance != "2" {
		t.Errorf("request in flight: answer of instance %q, %v", instance, err)
	}
	a.AwaitNew(a.Instance(2), before[2])
	if log := a.Log(a.Name + "-memory.service"); !strings.Contains(log, "instance has grown too large") {
		t.Errorf("no word of it:\n%s", log)
	}
	a.AwaitUp(a.N)
	a.Lossless(load.Stop())
	for _, i := range []int{1, 3} {
		if pid := a.PID(a.Instance(i)); pid != before[i] {
			t.Errorf("instance %d is new too", i)
		}
	}

	p, err := a.Properties(t.Context(), a.Instance(3))
	if err != nil || p["MemoryMax"] != strconv.Itoa(200<<20) {
		t.Errorf("MemoryMax=%s, %v", p["MemoryMax"], err)
	}
	if _, err := strconv.Atoi(p["MemoryCurrent"]); err != nil {
		t.Log("the kernel's kill is not tried: this machine has no memory controller of cgroup v2")
		return
	}
	if _, err := at(a, 3).Get("/grow?mb=400"); err == nil {
		t.Error("an instance has grown above --max-memory=")
	}
	a.AwaitNew(a.Instance(3), before[3])
	if log := a.Log(a.Instance(3)); !strings.Contains(log, "oom-kill") {
		t.Errorf("no word of the kernel's kill:\n%s", log)
	}
	a.AwaitUp(a.N)
}

// testReloadAt rolls by the clock, until it is told not to.
func testReloadAt(t *testing.T, s *apps.System) {
	a := apps.New(t, s, "clock", "--reload-at", "*:*:0/5", "--soak", "100ms")
	a.MustSystemctl("start", a.Name)
	a.AwaitUp(a.N)
	load := a.Load(rig.LoadOptions{Rate: 50})
	awaitRollout(a, a.PIDs())
	a.Unitgen("--reload-at=")
	if state := a.MustShow(t, a.Name+"-reload.timer", "ActiveState"); state != "inactive" {
		t.Errorf("the timer is %s", state)
	}
	a.Lossless(load.Stop())
}

// testWatch rolls when a file changes, each time.
func testWatch(t *testing.T, s *apps.System) {
	const file = "/srv/watched/release"
	s.MustWriteFile(t, file, "1\n", 0o644)
	a := apps.New(t, s, "filed", "--watch", file, "--soak", "100ms")
	a.MustSystemctl("start", a.Name)
	a.AwaitUp(a.N)
	load := a.Load(rig.LoadOptions{Rate: 50})
	for _, text := range []string{"2\n", "3\n"} {
		before := a.PIDs()
		s.MustWriteFile(t, file, text, 0o644)
		awaitRollout(a, before)
	}
	a.Lossless(load.Stop())
}

// awaitRollout waits until no process is one of before and the rollout is over.
func awaitRollout(a *apps.App, before map[int]string) {
	a.T.Helper()
	for i, pid := range before {
		a.AwaitNew(a.Instance(i), pid)
	}
	a.MustWait(a.T, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "active" })
}
