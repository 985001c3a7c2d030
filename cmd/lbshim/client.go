package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/systemd"
)

// joinTimeout is how long the small commands wait for a shim. A shim answers within milliseconds,
// and a restarting shim within a second.
const joinTimeout = 15 * time.Second

// join gives the shim copies of the listeners that PID 1 passed.
func join(ctx context.Context, e *env, o options) error {
	fds, err := listeners()
	if err != nil {
		return &statusError{exitNotConfigured, err}
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	err = control.Retry(ctx, func() error {
		return control.Call(ctx, o.controlPath(e), control.MethodJoin, control.Instance{Instance: o.instance}, nil, fds...)
	})
	if err != nil {
		return fmt.Errorf("join shim as instance %d: %w", o.instance, err)
	}
	return nil
}

// listeners takes the descriptors that PID 1 passed to a join unit: only the instance's listeners.
// Their flags are shared with the instance and stay as they are.
func listeners() ([]int, error) {
	passed, err := activation.Inherit()
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, d := range passed.All() {
		fd, err := d.Take()
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	if len(fds) == 0 {
		return nil, errors.New("take listeners: systemd passed none, Sockets= of this unit must name the instance's socket")
	}
	return fds, nil
}

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
