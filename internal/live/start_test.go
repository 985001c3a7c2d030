package live

import (
	"testing"

	"github.com/unitgen/unitgen/internal/systemd"
)

// The end of a run that unitgen itself starts anew says nothing, nor that the run was up.
func TestRunThatIsRenewedIsNotGone(t *testing.T) {
	s := &starting{ended: make(map[string]bool), old: "before", renew: true}
	for _, step := range []struct {
		active, run, result string
		up, gone            bool
	}{
		{"active", "before", "success", false, false},
		{"failed", "before", "exit-code", false, false},
		{"failed", "new", "success", false, false}, // as it begins
		{"active", "new", "success", true, false},
		{"failed", "new", "exit-code", false, true},
	} {
		s.told(systemd.UnitState{ActiveState: step.active, InvocationID: step.run, Result: step.result})
		if s.up != step.up || s.gone != step.gone {
			t.Errorf("%s in run %s: up %t, gone %t; want %t, %t", step.active, step.run, s.up, s.gone, step.up, step.gone)
		}
	}
}

// From systemd 254 on an instance is "failed" for a moment before each automatic restart.
func TestInstanceThatIsStartedAgainIsNotGone(t *testing.T) {
	s := &starting{ended: make(map[string]bool), old: "before"}
	for _, step := range []struct {
		sub, run  string
		result    string
		gone      bool
		ended     int
		wantsMore bool
	}{
		{"failed-before-auto-restart", "before", "exit-code", false, 0, true},
		{"failed-before-auto-restart", "first", "exit-code", false, 1, true},
		{"auto-restart-queued", "second", "success", false, 1, true}, // as it begins
		{"failed", "second", "exit-code", true, 2, false},
	} {
		s.told(systemd.UnitState{ActiveState: "failed", SubState: step.sub, InvocationID: step.run, Result: step.result})
		if s.gone != step.gone || len(s.ended) != step.ended {
			t.Errorf("%s in run %s: gone %t, %d runs ended; want %t, %d", step.sub, step.run, s.gone, len(s.ended), step.gone, step.ended)
		}
		if settled(map[string]*starting{"app@1.service": s}, failuresToTell, true) == step.wantsMore {
			t.Errorf("%s in run %s: the wait goes on: %t, want %t", step.sub, step.run, !step.wantsMore, step.wantsMore)
		}
	}
}
