package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/systemd"
)

// backOff is ExecStopPost= of an instance where systemd has no RestartSteps= (below 254). The instance is "deactivating
// (stop-post)" meanwhile, and nobody's connection waits for it.
func backOff(ctx context.Context, e *env, o options) error {
	if e.getenv("EXIT_CODE") == "exited" {
		status, err := strconv.Atoi(e.getenv("EXIT_STATUS"))
		if err == nil && slices.Contains(o.exitCodes, status) {
			return nil // no restart follows
		}
	}
	conn, err := systemd.Dial(ctx, o.endpoint(e))
	if err != nil {
		return err
	}
	defer conn.Close()
	unit := o.app.Instance(o.instance)
	state, err := conn.Unit(ctx, unit)
	if err != nil {
		return err
	}
	wait := lifecycle.BackOff(state, o.restartDelay, time.Now())
	if wait == 0 {
		return nil
	}
	timed, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err = conn.AwaitStop(timed, unit)
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil || systemd.IsDisconnected(err) {
		return nil // time is up, or what can keep an admin waiting ends: SIGTERM, or a manager that cannot be followed
	}
	return err
}
