package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/systemd"
)

// backOff is ExecStopPost= of an instance. The instance is "deactivating (stop-post)" meanwhile,
// and no connection waits for it.
func backOff(ctx context.Context, e *command.Env, o command.Options) error {
	if err := tellEnd(ctx, e, o); err != nil {
		e.Log.Warn("tell the balancer that the program has ended, ignoring", "instance", o.Instance, "error", err)
	}
	runtimeDir := filepath.Dir(o.ControlPath(e))
	asked := lifecycle.TakeStop(runtimeDir, o.Instance, e.Getenv("INVOCATION_ID"))
	if asked && e.Getenv("SERVICE_RESULT") == "success" {
		return nil // somebody stops or restarts it. PID 1 also ends one that runs for too long (RuntimeMaxSec=)
	}
	if e.Getenv("EXIT_CODE") == "exited" {
		status, err := strconv.Atoi(e.Getenv("EXIT_STATUS"))
		if err == nil && slices.Contains(o.ExitCodes, status) {
			return nil // no restart follows
		}
	}
	unit := o.App.Instance(o.Instance)
	state, err := systemd.ReadUnit(ctx, o.Endpoint(e), unit)
	if err != nil {
		return err
	}
	wait, forgiven := lifecycle.BackOff(state, o.RestartDelay, lifecycle.Forgiven(runtimeDir, o.Instance), time.Now())
	if err := lifecycle.NoteForgiven(runtimeDir, o.Instance, forgiven); err != nil {
		e.Log.Warn("note that restarts are forgiven, ignoring", "instance", o.Instance, "error", err)
	}
	if wait == 0 {
		return nil
	}
	timed, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	conn, err := systemd.DialToStay(timed, o.Endpoint(e))
	if err == nil {
		defer conn.Close()
		err = conn.AwaitStop(timed, unit)
	}
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil || systemd.IsDisconnected(err) {
		return nil // time is up, or what can keep an admin waiting ends: SIGTERM, or a manager that cannot be followed
	}
	return err
}

// tellEndLimit bounds the wait for a shim that hangs.
const tellEndLimit = 5 * time.Second

// tellEnd has the shim put back what the program did to its listener, before PID 1 polls that: PID
// 1 gives up a listener that does not listen.
func tellEnd(ctx context.Context, e *command.Env, o command.Options) error {
	ctx, cancel := context.WithTimeout(ctx, tellEndLimit)
	defer cancel()
	answers, err := shimAnswers(ctx, e, o)
	if err != nil || !answers {
		return err
	}
	return control.Call(ctx, o.ControlPath(e), control.MethodEnded, control.Instance{Instance: o.Instance}, nil)
}
