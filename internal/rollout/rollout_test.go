package rollout

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/systemd"
)

func newTest(t *testing.T, surge int) *Rollout {
	t.Helper()
	return New(Options{App: "app", Surge: surge, RuntimeDir: t.TempDir()}, systemd.Endpoint{}, nil,
		func(string) {}, slog.New(slog.DiscardHandler))
}

func TestExtraInstancesTakeTheNextNumbers(t *testing.T) {
	for _, c := range []struct {
		surge int
		have  []int
		want  []int
	}{
		{1, []int{1, 2, 3}, []int{4}},
		{1, []int{2, 7}, []int{8}},
		{SurgeAll, []int{1, 2}, []int{3, 4}},
		{0, []int{1, 2}, nil},
		{1, nil, nil},
		{2, []int{511}, []int{512}}, // 512 is the last number there is
		{1, []int{512}, nil},
	} {
		if got := newTest(t, c.surge).extra(c.have); !slices.Equal(got, c.want) {
			t.Errorf("surge %d beside %v: %v, want %v", c.surge, c.have, got, c.want)
		}
	}
}

func TestExtraInstancesOfAKilledRolloutAreRemembered(t *testing.T) {
	r := newTest(t, 2)
	if got := r.leftover(); got != nil {
		t.Errorf("a new app has leftovers %v", got)
	}
	if err := r.remember([]int{5, 6}); err != nil {
		t.Fatal(err)
	}
	if got := r.leftover(); !slices.Equal(got, []int{5, 6}) {
		t.Errorf("leftovers %v, want 5 and 6", got)
	}
	if err := r.remember(nil); err != nil {
		t.Fatal(err)
	}
	if got := r.leftover(); got != nil {
		t.Errorf("leftovers %v after they were removed", got)
	}
	if err := r.remember(nil); err != nil {
		t.Errorf("forgetting what is forgotten: %v", err)
	}
}

func TestLeftoversThatAreNoInstancesAreIgnored(t *testing.T) {
	r := newTest(t, 1)
	path := filepath.Join(r.options.RuntimeDir, extraFile)
	if err := os.WriteFile(path, []byte("5\n0\n99999\n../x\n007\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := r.leftover(); !slices.Equal(got, []int{5}) {
		t.Errorf("leftovers %v, want 5 alone", got)
	}
}

func TestOneRolloutAtATime(t *testing.T) {
	r := newTest(t, 1)
	lock, err := r.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.lock(); err == nil || !strings.Contains(err.Error(), "another rollout of app is under way") {
		t.Errorf("second rollout: %v", err)
	}
	lock.Close()
	lock, err = r.lock()
	if err != nil {
		t.Fatalf("after the first ended: %v", err)
	}
	lock.Close()
}

func TestFailedTellsEndsFromSteps(t *testing.T) {
	for state, want := range map[systemd.UnitState]bool{
		{ActiveState: "activating", SubState: "start"}:               false,
		{ActiveState: "activating", SubState: "start-post"}:          false,
		{ActiveState: "activating", SubState: "auto-restart"}:        true,
		{ActiveState: "activating", SubState: "auto-restart-queued"}: true,
		{ActiveState: "deactivating", SubState: "stop-sigterm"}:      true,
		{ActiveState: "failed", SubState: "failed"}:                  true,
		{ActiveState: "inactive", SubState: "dead"}:                  true,
		{ActiveState: "active", SubState: "running"}:                 false,
	} {
		if got := failed(state); got != want {
			t.Errorf("%s (%s): %v, want %v", state.ActiveState, state.SubState, got, want)
		}
	}
}
