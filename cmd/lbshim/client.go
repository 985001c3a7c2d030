package main

import (
	"context"
	"time"

	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/systemd"
)

// joinTimeout is how long the small commands wait for a shim. A shim answers within milliseconds,
// and a restarting shim within a second.
const joinTimeout = 15 * time.Second

// shimAnswers is lifecycle.Answers for the commands of an instance.
func shimAnswers(ctx context.Context, e *env, o options) (bool, error) {
	if lifecycle.Running(o.app) != 0 {
		return true, nil
	}
	shim, err := shimState(ctx, e, o)
	return err == nil && lifecycle.Answers(shim), err
}

func shimState(ctx context.Context, e *env, o options) (systemd.UnitState, error) {
	return systemd.ReadUnit(ctx, o.endpoint(e), o.app.Service())
}

// stopsTimeout bounds the last request of a command that has received its stop signal.
const stopsTimeout = 2 * time.Second

// stops reports whether PID 1 stops or restarts a unit. If a command of its start or reload then
// ended with a failure, the unit would be failed, and the system degraded.
func stops(e *env, o options, unit string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), stopsTimeout)
	defer cancel()
	state, err := systemd.ReadUnit(ctx, o.endpoint(e), unit)
	return err == nil && (state.Leaving() || state.JobType == "stop")
}
