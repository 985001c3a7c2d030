package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
)

// join gives the shim copies of the listeners that PID 1 passed: of one instance, or of all. It notes
// which instances have joined. An instance of all that cannot join has another try, and the error of
// that, in its own unit; so the command fails only if none can.
func join(ctx context.Context, e *env, o options) error {
	of, err := listeners(o)
	if err != nil {
		return &statusError{exitNotConfigured, err}
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	var joined []int
	for _, instance := range slices.Sorted(maps.Keys(of)) {
		e := control.Retry(ctx, func() error {
			return control.Call(ctx, o.controlPath(e), control.MethodJoin, control.Instance{Instance: instance}, nil, of[instance]...)
		})
		if e != nil {
			err = errors.Join(err, fmt.Errorf("join shim as instance %d: %w", instance, e))
			continue
		}
		joined = append(joined, instance)
	}
	if len(joined) > 0 && err != nil {
		e.log.Warn("some instances have not joined, their own units try again", "error", err)
		err = nil
	}
	return errors.Join(err, noteJoined(o.joinedDir(e), joined))
}

// noteJoined makes the entries that PID 1 looks for before it starts the join unit of an instance.
// It does so at the end: if the command is killed before, all join again.
func noteJoined(dir string, instances []int) error {
	for _, instance := range instances {
		if err := os.Mkdir(filepath.Join(dir, strconv.Itoa(instance)), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("note that instance %d has joined: %w", instance, err)
		}
	}
	return nil
}

// listeners takes the descriptors that PID 1 passed to a join unit: only listeners of instances.
// Their flags are shared with the instances and stay as they are.
func listeners(o options) (map[int][]int, error) {
	passed, err := activation.Inherit()
	if err != nil {
		return nil, err
	}
	of := make(map[int][]int)
	for _, d := range passed.All() {
		instance := o.instance
		if instance == 0 {
			instance = instanceOf(o.app, d)
		}
		fd, err := d.Take()
		if err != nil {
			return nil, err
		}
		of[instance] = append(of[instance], fd)
	}
	delete(of, 0)
	if o.instance != 0 && len(of) == 0 {
		return nil, errors.New("take listeners: systemd passed none, Sockets= of this unit must name the instance's socket")
	}
	return of, nil
}

// instanceOf is the instance of one of many listeners: by the name of its socket unit, which is that
// of the descriptor, or by its path. It is 0 if an administrator has given it another name
// (FileDescriptorName=); the instance's own join unit has that one then.
func instanceOf(name app.Name, d *activation.Descriptor) int {
	if a, ok := d.Addr().(*net.UnixAddr); ok {
		number, _ := strings.CutPrefix(filepath.Base(a.Name), app.HandoffName)
		instance, _ := app.ParseInstance(number)
		return instance
	}
	unit, _ := name.ParseUnit(d.Name())
	return unit.Instance
}
