package roster

import (
	"slices"
	"testing"

	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Instances that are enabled and that PID 1 does not know are down; those that run without being
// enabled stay.
func TestInstancesThatAreEnabledOrRun(t *testing.T) {
	seen := []survey.Instance{{Number: 4, State: "up"}, {Number: 1, State: "up", Open: 3}}
	got := withDown(seen, []int{1, 2})
	want := []survey.Instance{{Number: 1, State: "up", Open: 3}, {Number: 2, State: "down", Open: -1}, {Number: 4, State: "up"}}
	if !slices.EqualFunc(got, want, func(a, b survey.Instance) bool { return a.Number == b.Number && a.State == b.State && a.Open == b.Open }) {
		t.Errorf("instances are %+v, want %+v", got, want)
	}
	if seen[0].Number != 4 || len(seen) != 2 {
		t.Errorf("what was seen has become %+v", seen)
	}
}

func TestResultIsHowTheLastRunEnded(t *testing.T) {
	for want, u := range map[string]systemd.UnitState{
		"":            {Result: "success"},
		"exit-code 3": {Result: "exit-code", ExecMainCode: 1, ExecMainStatus: 3},
		"exit-code":   {Result: "exit-code", ExecMainCode: 1}, // of another command than the program
		"timeout":     {Result: "timeout", ExecMainCode: 2, ExecMainStatus: 9},
	} {
		if got := resultOf(u); got != want {
			t.Errorf("result of %+v is %q, want %q", u, got, want)
		}
	}
}
