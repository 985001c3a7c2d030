package command

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Endpoint is the service manager that runs the app.
func (o *Options) Endpoint(e *Env) systemd.Endpoint {
	if o.UserUnits {
		return systemd.UserEndpoint(e.Getenv("XDG_RUNTIME_DIR"), e.Getenv("DBUS_SESSION_BUS_ADDRESS"))
	}
	return systemd.SystemEndpoint(os.Geteuid(), e.Getenv("DBUS_SYSTEM_BUS_ADDRESS"))
}

// BalancerState reads the state of the balancer's unit.
func BalancerState(ctx context.Context, e *Env, o Options) (systemd.UnitState, error) {
	return systemd.ReadUnit(ctx, o.Endpoint(e), o.App.Service())
}

// ServeOptions returns the options in ExecStart= of the balancer's unit.
func ServeOptions(ctx context.Context, conn *systemd.Conn, name app.Name) (Options, error) {
	now := DefaultOptions()
	argv, err := conn.ExecStart(ctx, name.Service())
	if err != nil {
		return now, err
	}
	if err := now.Flags().Parse(argv[1:]); err != nil {
		return now, fmt.Errorf("parse ExecStart= of %s: %w", name.Service(), err)
	}
	return now, nil
}

// StopsTimeout bounds the last request of a command that has received its stop signal.
const StopsTimeout = 2 * time.Second

// stops reports whether PID 1 stops or restarts a unit. If a command of its start or reload then
// ended with a failure, the unit would be failed, and the system degraded.
func stops(e *Env, o Options, unit string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), StopsTimeout)
	defer cancel()
	state, err := systemd.ReadUnit(ctx, o.Endpoint(e), unit)
	return err == nil && (state.Leaving() || state.JobType == "stop")
}
