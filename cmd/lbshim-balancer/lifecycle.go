package main

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"time"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/process"
	"github.com/unitgen/unitgen/internal/systemd"
)

// stop is ExecStop= of the shim's unit.
func stop(ctx context.Context, e *command.Env, o command.Options) error {
	if e.Getenv("EXIT_CODE") != "" {
		return nil // the shim has ended by itself, and with success: PID 1 runs ExecStop= then too, but nobody stops the app
	}
	return systemd.Ask(ctx, o.Endpoint(e), func(c *systemd.Conn) error { return lifecycle.Stop(ctx, c, o.App, o.ControlPath(e)) })
}

// resume is ExecStartPost= of the shim's unit. It ends at once when the shim ends: PID 1 starts the
// next shim only after resume, and the drains that resume waits for continue with the next shim.
// PID 1 carries out the queued jobs.
func resume(ctx context.Context, e *command.Env, o command.Options) error {
	shimPID, err := strconv.Atoi(e.Getenv("MAINPID"))
	if err != nil {
		return errShimEnded // PID 1 tells each such process of the shim, unless that has just ended
	}
	alive, cancel := process.Context(ctx, shimPID)
	defer cancel()
	err = systemd.Ask(alive, o.Endpoint(e), func(c *systemd.Conn) error {
		return lifecycle.Resume(alive, c, o.App, filepath.Dir(o.ControlPath(e)), e.Log)
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(alive), process.ErrEnded):
		return errShimEnded
	case ctx.Err() != nil:
		return errors.Join(err, stopInstead(context.WithoutCancel(ctx), e, o))
	}
	return err
}

var errShimEnded = errors.New("the balancer has ended while it started; systemd starts the next one")

// cleanup is ExecStopPost= of the shim's unit, and of its control socket.
func cleanup(ctx context.Context, e *command.Env, o command.Options) error {
	if e.Getenv("SERVICE_RESULT") == "exit-code" {
		defer explainStart(ctx, e, o) // when all else is done, as the next shim waits for this
	}
	idle := e.Getenv("EXIT_CODE") == "exited" && e.Getenv("EXIT_STATUS") == strconv.Itoa(lifecycle.ExitIdle)
	return systemd.Ask(ctx, o.Endpoint(e), func(c *systemd.Conn) (err error) {
		if e.Getenv("SERVICE_RESULT") != "" { // of a service
			err = lifecycle.NoteEnd(ctx, c, o.App, filepath.Dir(o.ControlPath(e)))
		}
		return errors.Join(err, lifecycle.Cleanup(ctx, c, o.App, filepath.Dir(o.ControlPath(e)), idle))
	})
}

// explainStart logs in the journal of the app why its start has failed, because the shim may not
// read the sources of the reason. If the reason is not found, the stop succeeds all the same.
func explainStart(ctx context.Context, e *command.Env, o command.Options) {
	conn, err := systemd.Dial(ctx, o.Endpoint(e))
	if err != nil {
		return
	}
	defer conn.Close()
	shim, err := conn.Unit(ctx, o.App.Service())
	if err != nil || shim.ActiveEnter >= shim.InactiveExit && shim.ActiveEnter != 0 {
		return // it was ready: this is a crash of its own
	}
	instances, err := conn.Instances(ctx, o.App)
	if err != nil {
		return
	}
	var numbers []int
	for _, in := range instances {
		numbers = append(numbers, in.Number)
	}
	q := explain.Question{Conn: conn, App: o.App, UserUnits: o.UserUnits, RuntimeDir: filepath.Dir(o.ControlPath(e)),
		Since: time.UnixMicro(shim.InactiveExit)}
	failures, err := q.Instances(ctx, numbers)
	if err != nil {
		e.Log.Warn("find out why instances are not ready, ignoring", "error", err)
	}
	for _, f := range failures {
		text := f.String()
		if f.Hint != "" {
			text += "; hint: " + f.Hint
		}
		e.LastWords().Error(text)
	}
}
