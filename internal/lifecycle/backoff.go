package lifecycle

import (
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/systemd"
)

// BackOff is how long the automatic restart of an instance that has just ended has to wait beyond delay, which PID 1
// waits anyway (RestartSec=): delay doubles with each restart, up to app.MaxRestartDelay in all. It does what RestartSteps=
// does since systemd 254, and more: an instance that was ready for longer than the longest delay begins anew.
func BackOff(instance systemd.UnitState, delay time.Duration, now time.Time) time.Duration {
	// What became active before it last began to start was an earlier invocation.
	ready := instance.ActiveEnter != 0 && instance.ActiveEnter >= instance.InactiveExit
	if ready && now.Sub(instance.Since()) > app.MaxRestartDelay {
		return 0
	}
	wait := delay
	for range instance.NRestarts {
		if wait *= 2; wait >= app.MaxRestartDelay {
			return max(0, app.MaxRestartDelay-delay)
		}
	}
	return wait - delay
}
