package main

import (
	"context"
	"time"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/process"
	"github.com/unitgen/unitgen/internal/systemd"
)

// PID 1 leaves ExecStop= out where it stops a service that is reloading, or runs ExecStartPost=: it
// sends SIGTERM to the shim and to the process of the reload or start. That process does the work
// of ExecStop= then, and the shim serves until it has ended.

// lingerMargin is what the stop of all instances may take beyond their drain; PID 1 bounds it too
// (TimeoutStopSec=).
const lingerMargin = 15 * time.Second

// linger returns a context that ends when ctx has ended and no process needs the shim for a stop
// any more. The caller calls cancel, which waits.
func linger(ctx context.Context, e *command.Env, o command.Options) (lasting context.Context, cancel func()) {
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() { // ends with ctx and the stop, or with lasting
		defer close(done)
		select {
		case <-ctx.Done():
			awaitStopper(lasting, e, o)
			end()
		case <-lasting.Done():
		}
	}()
	return lasting, func() { end(); <-done }
}

// awaitStopper returns when the process that stops the app has ended; at once if there is none.
func awaitStopper(ctx context.Context, e *command.Env, o command.Options) {
	ctx, cancel := context.WithTimeout(ctx, o.DrainTimeout+lingerMargin)
	defer cancel()
	shim, err := stopped(ctx, e, o)
	if err != nil || shim.ControlPID == 0 {
		return
	}
	e.Log.Info("the app is stopped in the middle of a reload or start: instances drain first")
	ctx, end := process.Context(ctx, shim.ControlPID)
	defer end()
	<-ctx.Done()
}

// stopped returns the state of the shim's unit if it is being stopped, not restarted; otherwise
// nothing.
func stopped(ctx context.Context, e *command.Env, o command.Options) (systemd.UnitState, error) {
	ctx, cancel := context.WithTimeout(ctx, command.StopsTimeout)
	defer cancel()
	shim, err := command.BalancerState(ctx, e, o)
	if err != nil || shim.JobType != "stop" || !shim.Leaving() {
		return systemd.UnitState{}, err
	}
	return shim, nil
}

// stopInstead does what ExecStop= would have done, when a reload or start was ended because the app
// is stopped. ctx has ended then; alive ends with the shim.
func stopInstead(alive context.Context, e *command.Env, o command.Options) error {
	shim, err := stopped(alive, e, o)
	if err != nil || shim.MainPID == 0 {
		return err
	}
	return systemd.Ask(alive, o.Endpoint(e), func(c *systemd.Conn) error { return lifecycle.Stop(alive, c, o.App, o.ControlPath(e)) })
}
