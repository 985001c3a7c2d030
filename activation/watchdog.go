package activation

import (
	"fmt"
	"math"
	"time"

	"github.com/unitgen/unitgen/internal/listenfds"
)

// WatchdogInterval is WatchdogSec= of the unit: the manager kills the process when it stays silent
// for that long, so call Watchdog about twice as often. Zero means that no watchdog waits for this
// process: sd_watchdog_enabled(3).
func (n *Notifier) WatchdogInterval() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog
}

// Watchdog says that the process works: WATCHDOG=1. Call it from the loop that does the work, not
// from one of its own: a timer goes on when the work is stuck.
func (n *Notifier) Watchdog() error { return n.send("WATCHDOG=1") }

// parseWatchdog reads WATCHDOG_USEC, and WATCHDOG_PID, which names the only process that is waited
// for.
func parseWatchdog(lookup func(string) (string, bool), pid int) (time.Duration, error) {
	text, ok := lookup("WATCHDOG_USEC")
	if !ok {
		return 0, nil
	}
	if text, ok := lookup("WATCHDOG_PID"); ok {
		owner, err := listenfds.ParseNumber("WATCHDOG_PID", text, 31)
		if err != nil {
			return 0, err
		}
		if owner != uint64(pid) {
			return 0, nil
		}
	}
	usec, err := listenfds.ParseNumber("WATCHDOG_USEC", text, 64)
	if err != nil {
		return 0, err
	}
	if usec > math.MaxInt64/1000 {
		return 0, fmt.Errorf("parse WATCHDOG_USEC=%q: longer than 292 years", text)
	}
	return time.Duration(usec) * time.Microsecond, nil
}
