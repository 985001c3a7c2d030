package live

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/systemd"
)

// What PID 1 says of an instance, one word after the other, and what the user is told.
func TestPhases(t *testing.T) {
	type words []systemd.UnitState
	state := func(active, sub, run string) systemd.UnitState {
		return systemd.UnitState{Name: "web@1.service", ActiveState: active, SubState: sub, InvocationID: run}
	}
	failed := state("failed", "failed", "b")
	restarted := words{state("active", "running", "a"), state("deactivating", "stop", "a"), state("deactivating", "stop-sigterm", "a"),
		state("inactive", "dead", "a"), state("activating", "start", "b"), state("active", "running", "b")}
	for name, test := range map[string]struct {
		verb  systemd.Verb
		extra bool
		words words
		want  string
	}{
		"renewed by a reload":           {systemd.Reload, false, restarted, "waiting draining ending starting ready"},
		"states that were missed":       {systemd.Reload, false, words{restarted[0], restarted[5]}, "waiting ready"},
		"an extra one":                  {systemd.Reload, true, append(words{state("inactive", "dead", "")}, append(restarted[4:], state("deactivating", "stop", "b"), state("inactive", "dead", "b"))...), "starting ready draining stopped"},
		"new code that ends":            {systemd.Reload, true, words{state("activating", "start", "b"), failed, state("activating", "auto-restart", "b")}, "starting failed"},
		"new code that ends at once":    {systemd.Reload, true, words{failed}, "failed"},
		"it had failed before":          {systemd.Start, false, words{state("failed", "failed", "a"), state("activating", "start", "c"), state("active", "running", "c")}, "starting ready"},
		"up before a start":             {systemd.Start, false, restarted[:1], "ready"},
		"stopped":                       {systemd.Stop, false, restarted[:4], "waiting draining ending stopped"},
		"taken away":                    {stopSome, false, restarted[:4], "waiting draining ending stopped"},
		"down, and nobody asked for it": {systemd.Reload, false, words{state("inactive", "dead", "")}, ""},
	} {
		var told []string
		f := &follower{Manager: &Manager{Options: Options{Tell: func(e Event) { told = append(told, e.Phase.String()) }}}, name: "web", verb: test.verb}
		f.at = map[int]*followed{1: {extra: test.extra, first: "a"}}
		for _, u := range test.words {
			f.told(u)
		}
		if got := strings.Join(told, " "); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

// The first step of a rollout proves the extra instances, and only those that are ready.
func TestProved(t *testing.T) {
	var told []string
	f := &follower{Manager: &Manager{Options: Options{Tell: func(e Event) { told = append(told, e.String()) }}}, name: "web", verb: systemd.Reload}
	f.at = map[int]*followed{1: {phase: PhaseServing}, 4: {phase: PhaseServing, extra: true}, 5: {phase: PhaseLaunched, extra: true}}
	for _, line := range []string{"rollout: trying the new code; 3/3 instances up", "3/3 instances up", "rollout 0/3; 3/3 instances up", "rollout 1/3"} {
		f.told(systemd.UnitState{Name: "web.service", ActiveState: "reloading", StatusText: line})
	}
	if got := strings.Join(told, ", "); got != "web@4: proved: the new code stays up" || !f.serving {
		t.Errorf("got %q", got)
	}
}

// An operation begins when the watcher has read the instances: if one fails at once and is gone
// again, no later signal says so.
func TestFollowedFromTheBeginning(t *testing.T) {
	h := newMachine(t)
	failed := make(chan bool, 1)
	h.Tell = func(e Event) {
		if e.Phase == PhaseFailing {
			failed <- true
		}
	}
	subscribed := func() int {
		h.pid1.Lock()
		defer h.pid1.Unlock()
		return h.pid1.Subscribed
	}
	before := subscribed()
	numbers, err := h.followed(t.Context(), "web", systemd.Reload, []int{1}, []int{2}, nil, func(context.Context) error {
		if subscribed() == before {
			t.Error("nobody listens to PID 1")
		}
		h.pid1.Run("web@2.service", "activating")
		h.pid1.Run("web@2.service", "failed", "Result", "exit-code")
		select {
		case <-failed:
		case <-time.After(watchLimit):
			t.Error("nobody was told")
		}
		return nil
	})
	if fmt.Sprint(numbers) != "[2]" || err != nil {
		t.Errorf("failed: %v, %v", numbers, err)
	}
}

// A start has one watcher. What another instance costs PID 1 is two questions when it is first read,
// as it has never run, and one at the end.
func TestStartIsFollowedOnce(t *testing.T) {
	start := func(instances int) (watchers, asked int) {
		h := newMachine(t)
		p := h.plan(instances, nil)
		h.apply(p, false)
		count := func() (watchers, asked int) {
			asked = h.pid1.Asked()
			h.pid1.Lock()
			defer h.pid1.Unlock()
			return h.pid1.Subscribed, asked
		}
		w, q := count()
		if err := h.Start(t.Context(), p.App); err != nil {
			t.Fatal(err)
		}
		watchers, asked = count()
		return watchers - w, asked - q
	}
	watchers, few := start(2)
	_, more := start(4)
	if each := (more - few) / 2; watchers != 1 || each != 3 {
		t.Errorf("%d watchers, %d questions for each instance; want 1 and 3", watchers, each)
	}
}
