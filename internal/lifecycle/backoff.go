package lifecycle

import (
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/systemd"
)

// BackOff returns how long the automatic restart of an instance that has just ended must wait
// beyond delay, which PID 1 waits anyway (RestartSec=). The delay doubles with each restart, up to
// app.MaxRestartDelay in all. If the instance was ready for longer than that, the delay starts
// again.
//
// PID 1 counts restarts, and resets the count only when somebody starts the instance by hand. So
// forgiven is the number of restarts that no longer count, as the previous call returned it; zero
// for the first call.
//
// RestartSteps= does the same since systemd 254, but its delay never starts again.
func BackOff(instance systemd.UnitState, delay time.Duration, forgiven int, now time.Time) (wait time.Duration, forgive int) {
	restarts := instance.NRestarts
	// What became active before it last began to start was an earlier invocation.
	ready := instance.ActiveEnter != 0 && instance.ActiveEnter >= instance.InactiveExit
	switch {
	case ready && now.Sub(instance.Since()) > app.MaxRestartDelay:
		forgiven = restarts
	case forgiven > restarts:
		forgiven = 0 // the count starts again
	}
	wait = delay
	for range restarts - forgiven {
		if wait *= 2; wait >= app.MaxRestartDelay {
			return max(0, app.MaxRestartDelay-delay), forgiven
		}
	}
	return wait - delay, forgiven
}
