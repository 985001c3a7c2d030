package lifecycle

import (
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/systemd"
)

// BackOff is how long the automatic restart of an instance that has just ended has to wait beyond delay, which PID 1
// waits anyway (RestartSec=): delay doubles with each restart, up to app.MaxRestartDelay in all. An instance that was ready
// for longer than that begins anew.
//
// PID 1 counts restarts, and forgets them only when somebody starts the instance by hand. So forgiven says how many of them
// no longer count, as BackOff has returned it at the end before; zero at the first.
//
// RestartSteps= does the same since systemd 254, but never begins anew.
func BackOff(instance systemd.UnitState, delay time.Duration, forgiven int, now time.Time) (wait time.Duration, forgive int) {
	restarts := instance.NRestarts
	// What became active before it last began to start was an earlier invocation.
	ready := instance.ActiveEnter != 0 && instance.ActiveEnter >= instance.InactiveExit
	switch {
	case ready && now.Sub(instance.Since()) > app.MaxRestartDelay:
		forgiven = restarts
	case forgiven > restarts:
		forgiven = 0 // they are counted anew
	}
	wait = delay
	for range restarts - forgiven {
		if wait *= 2; wait >= app.MaxRestartDelay {
			return max(0, app.MaxRestartDelay-delay), forgiven
		}
	}
	return wait - delay, forgiven
}
