//go:build integration

package rollout

import (
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testSurge counts the instances that are up during reloads of each kind, and the order in which
// they are renewed.
func testSurge(t *testing.T, s *apps.System) {
	a := start(t, s, "surge", "--instances=3", "--soak", "1s")
	load := a.Load(rig.LoadOptions{Rate: 100})
	for _, tt := range []struct {
		surge, parallel string
		least           int // instances that must be up at any time
		extra           int
	}{
		{"0", "1", 2, 0},
		{"1", "1", 3, 1},
		{"all", "1", 3, 3},
		{"1", "2", 3, 2}, // capacity is kept: two at a time need two extra ones
	} {
		a.Unitgen("--surge", tt.surge, "--parallel", tt.parallel)
		before, log := a.PIDs(), len(a.Log(a.Name+"*"))
		stop := a.Capacity()
		a.Reload()
		if n := len(a.Status().Instances); n != a.N {
			t.Errorf("--surge=%s --parallel=%s: after the reload the balancer has %d instances, want %d", tt.surge, tt.parallel, n, a.N)
		}
		least, looks := stop()
		if least < tt.least || looks == 0 {
			t.Errorf("--surge=%s --parallel=%s: as few as %d instances were up (%d looks), want %d", tt.surge, tt.parallel, least, looks, tt.least)
		}
		for number, pid := range a.PIDs() {
			if pid == before[number] {
				t.Errorf("instance %d is not new", number)
			}
		}
		text := a.Log(a.Name + "*")[log:]
		order := renewed(text)
		if tt.parallel != "1" {
			slices.Sort(order)
		}
		if !slices.Equal(order, []string{"1", "2", "3"}) {
			t.Errorf("--surge=%s --parallel=%s: renewed in the order %v", tt.surge, tt.parallel, order)
		}
		if n := strings.Count(text, "instance joined"); n != tt.extra {
			t.Errorf("--surge=%s --parallel=%s: %d extra instances, want %d", tt.surge, tt.parallel, n, tt.extra)
		}
		checkNoExtra(a)
	}
	a.Lossless(load.Stop())
}

// renewed lists the instances that a rollout says it has renewed.
func renewed(log string) []string {
	var order []string
	for line := range strings.Lines(log) {
		if _, rest, ok := strings.Cut(line, "instance runs the new code instance="); ok {
			number, _, _ := strings.Cut(rest, " ")
			order = append(order, strings.TrimSpace(number))
		}
	}
	return order
}

// testSecondReload reloads while a reload is under way: by systemctl it runs after the first, by
// hand it is refused.
func testSecondReload(t *testing.T, s *apps.System) {
	a := start(t, s, "twice", "--soak", "3s")
	r := startReload(a, "trying the new code")
	out, err := a.Exec(t.Context(), "env", "MAINPID="+a.PID(a.Shim()), apps.Lbshim, "rollout", a.Name)
	if err != nil || out.Status == 0 || !strings.Contains(out.Stderr, "another rollout of "+a.Name+" is under way") {
		t.Errorf("a rollout by hand meanwhile = %+v, %v; want a refusal with the reason", out, err)
	}
	a.Reload()
	if err := <-r.done; err != nil {
		t.Errorf("the first reload: %v", err)
	}
	if n := strings.Count(a.Log(a.Shim()), "rollout is complete"); n != 2 {
		t.Errorf("%d rollouts are complete, want 2", n)
	}
	checkNoExtra(a)
}

// testStoppedStays reloads an app of which the admin has stopped one instance, before or meanwhile:
// it stays so, and so does the number of links.
func testStoppedStays(t *testing.T, s *apps.System) {
	a := start(t, s, "resting", "--soak", "5s")
	before := a.PIDs()
	a.MustSystemctl("stop", a.Instance(2))
	a.Reload()
	checkOthers := func() {
		for i, pid := range before {
			if i != 2 && a.PID(a.Instance(i)) == pid {
				t.Errorf("instance %d is not new", i)
			}
		}
	}
	checkOthers()
	if state := a.MustShow(t, a.Instance(2), "ActiveState"); state != "inactive" {
		t.Errorf("the instance that was stopped is %s", state)
	}
	a.MustSystemctl("start", a.Instance(2))
	checkNoExtra(a)
	a.Evenly()

	// Stopped while the rollout is on its way to it.
	before = a.PIDs()
	r := startReload(a, "trying the new code")
	a.MustSystemctl("stop", a.Instance(2))
	if err := <-r.done; err != nil {
		t.Errorf("the reload: %v", err)
	}
	checkOthers()
	if state := a.MustShow(t, a.Instance(2), "ActiveState"); state != "inactive" {
		t.Errorf("the instance that was stopped meanwhile is %s", state)
	}
}
