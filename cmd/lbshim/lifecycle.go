package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/systemd"
)

// stop is ExecStop= of the shim's unit.
func stop(ctx context.Context, e *env, o options) error {
	if e.getenv("EXIT_CODE") != "" {
		return nil // the shim has ended by itself, and with success: PID 1 runs ExecStop= then too, but nobody stops the app
	}
	conn, err := systemd.Dial(ctx, o.endpoint(e))
	if err != nil {
		return err
	}
	defer conn.Close()
	return lifecycle.Stop(ctx, conn, o.app, o.controlPath(e))
}

// resume is ExecStartPost= of the shim's unit.
func resume(ctx context.Context, e *env, o options) error {
	conn, err := systemd.Dial(ctx, o.endpoint(e))
	if err != nil {
		return err
	}
	defer conn.Close()
	err = lifecycle.Resume(ctx, conn, o.app, filepath.Dir(o.controlPath(e)), e.log)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, stopInstead(context.WithoutCancel(ctx), e, o))
	}
	return err
}

// cleanup is ExecStopPost= of the shim's unit, and of its control socket.
func cleanup(ctx context.Context, e *env, o options) error {
	conn, err := systemd.Dial(ctx, o.endpoint(e))
	if err != nil {
		return err
	}
	defer conn.Close()
	idle := e.getenv("EXIT_CODE") == "exited" && e.getenv("EXIT_STATUS") == strconv.Itoa(lifecycle.ExitIdle)
	if e.getenv("SERVICE_RESULT") != "" { // of a service
		err = lifecycle.NoteEnd(ctx, conn, o.app, filepath.Dir(o.controlPath(e)))
	}
	return errors.Join(err, lifecycle.Cleanup(ctx, conn, o.app, idle))
}

// endpoint is the service manager that runs the app.
func (o *options) endpoint(e *env) systemd.Endpoint {
	if o.userUnits {
		return systemd.UserEndpoint(e.getenv("XDG_RUNTIME_DIR"), e.getenv("DBUS_SESSION_BUS_ADDRESS"))
	}
	return systemd.SystemEndpoint(os.Geteuid(), e.getenv("DBUS_SYSTEM_BUS_ADDRESS"))
}
