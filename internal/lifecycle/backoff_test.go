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
		name  string
		unit  systemd.UnitState
		delay time.Duration
		want  time.Duration
	}{
		{"first end", systemd.UnitState{}, 200 * time.Millisecond, 0},
		{"second", systemd.UnitState{NRestarts: 1}, 200 * time.Millisecond, 200 * time.Millisecond},
		{"fifth", systemd.UnitState{NRestarts: 4}, 200 * time.Millisecond, 3 * time.Second},
		{"many", systemd.UnitState{NRestarts: 1 << 31}, 200 * time.Millisecond, 9800 * time.Millisecond},
		{"long delay", systemd.UnitState{NRestarts: 9}, time.Minute, 0},
		{"was up for long", systemd.UnitState{NRestarts: 9, InactiveExit: ago(time.Hour), ActiveEnter: ago(time.Hour)}, time.Second, 0},
		{"was up briefly", systemd.UnitState{NRestarts: 1, InactiveExit: ago(3 * time.Second), ActiveEnter: ago(2 * time.Second)}, time.Second, time.Second},
		{"never ready since", systemd.UnitState{NRestarts: 1, InactiveExit: ago(time.Minute), ActiveEnter: ago(time.Hour)}, time.Second, time.Second},
	} {
		if got := BackOff(test.unit, test.delay, now); got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}
