package systemd

import (
	"strings"

	"github.com/unitgen/unitgen/internal/balance"
)

// Up says that the unit runs and serves.
func (s UnitState) Up() bool {
	switch s.ActiveState {
	case "active", "reloading", "refreshing":
		return true
	}
	return false
}

// Dead says that the unit has ended. Where AwaitsRestart, the manager starts it again.
func (s UnitState) Dead() bool { return s.ActiveState == "inactive" || s.ActiveState == "failed" }

// Leaving says that the unit is on its way to its end.
func (s UnitState) Leaving() bool { return s.ActiveState == "deactivating" }

// AwaitsRestart says that the last run of a service is over, and that the manager starts the next
// one by itself (Restart=). Since systemd 254 the unit is inactive or failed for a moment before it
// is activating again (SERVICE_DEAD_BEFORE_AUTO_RESTART in src/core/service.c).
func (s UnitState) AwaitsRestart() bool { return strings.Contains(s.SubState, "auto-restart") }

// Ended says that the last run of a service is over or about to be, for whatever reason.
func (s UnitState) Ended() bool { return s.Dead() || s.Leaving() || s.AwaitsRestart() }

// Failed reports that the last run of a service is over and nobody asked for its end. It needs Result
// and ExecMainCode.
//
// As the next run begins, a signal may have its InvocationID, and no result and no end of a process,
// beside the states of the end before it, or of the wait: PID 1 sends what it has when a job of the
// unit changes (bus_job_send_pending_change_signal in src/core/dbus-job.c; seen on 257). That is no
// end. A service that has failed has a result (service_enter_dead in src/core/service.c).
func (s UnitState) Failed() bool {
	if s.AwaitsRestart() {
		return s.Result != "success" || s.ExecMainCode != 0
	}
	return (s.ActiveState == "failed" || s.SubState == "stop-post") && s.Result != "success"
}

// Balance returns what the state of a service means for connections. A program that has ended takes
// none, though ExecStopPost= may take time, such as that of a back-off.
func (s UnitState) Balance() balance.State {
	switch {
	case s.Up():
		return balance.Up
	case s.AwaitsRestart(), s.SubState == "stop-post":
		return balance.Down
	case s.Leaving():
		return balance.Draining
	case s.ActiveState == "activating":
		return balance.Starting
	}
	return balance.Down
}
