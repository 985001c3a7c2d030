package lifecycle

import (
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/systemd"
)

func TestBackOff(t *testing.T) {
	now := time.Unix(1000, 0)
	ago := func(d time.Duration) int64 { return now.Add(-d).UnixMicro() }
	for _, test := range []struct {
		name     string
		unit     systemd.UnitState
		delay    time.Duration
		forgiven int
		want     time.Duration
		forgive  int
	}{
		{"first end", systemd.UnitState{}, 200 * time.Millisecond, 0, 0, 0},
		{"second", systemd.UnitState{NRestarts: 1}, 200 * time.Millisecond, 0, 200 * time.Millisecond, 0},
		{"fifth", systemd.UnitState{NRestarts: 4}, 200 * time.Millisecond, 0, 3 * time.Second, 0},
		{"many", systemd.UnitState{NRestarts: 1 << 31}, 200 * time.Millisecond, 0, 9800 * time.Millisecond, 0},
		{"long delay", systemd.UnitState{NRestarts: 9}, time.Minute, 0, 0, 0},
		{"was up for long", systemd.UnitState{NRestarts: 9, InactiveExit: ago(time.Hour), ActiveEnter: ago(time.Hour)}, time.Second, 2, 0, 9},
		{"once more after that", systemd.UnitState{NRestarts: 10}, time.Second, 9, time.Second, 9},
		{"started by hand since", systemd.UnitState{NRestarts: 2}, time.Second, 9, 3 * time.Second, 0},
		{"was up briefly", systemd.UnitState{NRestarts: 1, InactiveExit: ago(3 * time.Second), ActiveEnter: ago(2 * time.Second)}, time.Second, 0, time.Second, 0},
		{"never ready since", systemd.UnitState{NRestarts: 1, InactiveExit: ago(time.Minute), ActiveEnter: ago(time.Hour)}, time.Second, 0, time.Second, 0},
	} {
		if got, forgive := BackOff(test.unit, test.delay, test.forgiven, now); got != test.want || forgive != test.forgive {
			t.Errorf("%s: got %v and %d forgiven, want %v and %d", test.name, got, forgive, test.want, test.forgive)
		}
	}
}
