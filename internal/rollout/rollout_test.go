package rollout

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func newTest(t *testing.T, surge int) *Rollout {
	t.Helper()
	enabled := func(_ context.Context, number int) (bool, error) { return number == 3 || number == 9, nil }
	return New(Options{App: "app", Surge: surge, RuntimeDir: t.TempDir(), Enabled: enabled}, nil, nil,
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
		{SurgeAll, []int{4, 5}, []int{6, 7}},
		{SurgeAll, []int{1, 2}, []int{4, 5}}, // 3 is enabled and was stopped: it stays so
		{2, []int{8}, []int{10, 11}},
		{0, []int{1, 2}, nil},
		{1, nil, nil},
		{2, []int{511}, []int{512}}, // 512 is the last number there is
		{1, []int{512}, nil},
	} {
		if got, err := newTest(t, c.surge).extra(t.Context(), c.have); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("surge %d beside %v: %v, %v; want %v", c.surge, c.have, got, err, c.want)
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

// Whoever enables the number of an extra instance is told that it runs: it is not the rollout's to
// stop any more.
func TestExtraInstancesThatAreEnabledByNowStay(t *testing.T) {
	got, err := newTest(t, 1).disposable(t.Context(), []int{8, 9, 10})
	if err != nil || !slices.Equal(got, []int{8, 10}) {
		t.Errorf("to be stopped: %v, %v; want 8 and 10", got, err)
	}
}
