package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/listenfds"
	"github.com/unitgen/unitgen/internal/readiness"
)

// join gives the shim copies of the listeners that PID 1 passed: of one instance, or of all. It notes
// which instances have joined. An instance of all that cannot join has another try, and the error of
// that, in its own unit; so the command fails only if none has joined.
func join(ctx context.Context, e *command.Env, o command.Options) error {
	of, err := listeners(o)
	if err != nil {
		return command.WithStatus(command.ExitNotConfigured, err)
	}
	var joined []int
	for _, instance := range slices.Sorted(maps.Keys(of)) {
		failed := joinOne(ctx, e, o, instance, of[instance])
		if failed == nil {
			joined = append(joined, instance)
		}
		err = errors.Join(err, failed)
		if _, refused := errors.AsType[*control.Error](failed); failed != nil && !refused {
			break // there is no shim, for the others neither
		}
	}
	if len(joined) > 0 && err != nil {
		e.Log.Warn("some instances have not joined, their own units try again", "error", err)
		err = nil
	}
	// At the end: if the command is killed before, all join again.
	for _, instance := range joined {
		err = errors.Join(err, lifecycle.NoteJoined(filepath.Dir(o.ControlPath(e)), instance))
	}
	return err
}

func joinOne(ctx context.Context, e *command.Env, o command.Options, instance int, listeners []int) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	err := control.Retry(ctx, func() error {
		return control.Call(ctx, o.ControlPath(e), control.MethodJoin, control.Instance{Instance: instance}, nil, listeners...)
	})
	if err != nil {
		return fmt.Errorf("join shim as instance %d: %w", instance, err)
	}
	return nil
}

// listeners takes the descriptors that PID 1 passed to a join unit: only listeners of instances.
// Their flags are shared with the instances and stay as they are.
func listeners(o command.Options) (map[int][]int, error) {
	passed, err := passedDescriptors()
	if err != nil {
		return nil, err
	}
	of := make(map[int][]int)
	for _, fd := range passed {
		instance := o.Instance
		if instance == 0 {
			instance = instanceOf(o.App, fd)
		}
		of[instance] = append(of[instance], fd.Number)
	}
	delete(of, 0)
	if o.Instance != 0 && len(of) == 0 {
		return nil, errors.New("take listeners: systemd passed none, Sockets= of this unit must name the instance's socket")
	}
	return of, nil
}

// joinNext has an instance join with its next start, whatever is noted, if err says that the shim does
// not have its listeners, or has others: one whose socket was closed and opened at once looks the same.
func joinNext(e *command.Env, o command.Options, err error) {
	refused, _ := errors.AsType[*control.Error](err)
	none := refused != nil && refused.Name == control.ErrNoSuchInstance
	if !none && !errors.Is(err, readiness.ErrNotAccepted) {
		return
	}
	if err := lifecycle.ForgetJoined(filepath.Dir(o.ControlPath(e)), o.Instance); err != nil {
		e.Log.Warn("forget that the instance has joined, ignoring", "instance", o.Instance, "error", err)
	}
}

// instanceOf is the instance of one of many listeners: by the name of its socket unit, which is that
// of the descriptor, or by its path. It is 0 if an administrator has given it another name
// (FileDescriptorName=); the instance's own join unit has that one then.
func instanceOf(name app.Name, fd listenfds.FD) int {
	address, _ := unix.Getsockname(fd.Number)
	if a, ok := address.(*unix.SockaddrUnix); ok {
		number, _ := strings.CutPrefix(filepath.Base(a.Name), app.HandoffName)
		instance, _ := app.ParseInstance(number)
		return instance
	}
	unit, _ := name.ParseUnit(fd.Name)
	return unit.Instance
}
