package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/rollout"
)

// remove stops and disables an app and deletes its files and links. Drop-ins are the admin's and stay.
func (c *command) remove(ctx context.Context) error {
	name, err := c.appName()
	if err != nil {
		return err
	}
	if !c.options.dryRun {
		release, err := c.site.Lock(ctx, c.waiting)
		if err != nil {
			return err
		}
		defer release()
	}
	changes, err := c.site.Removals(name)
	if errors.Is(err, fs.ErrNotExist) {
		return c.noApp(name)
	}
	if err != nil {
		return err
	}
	if c.options.dryRun {
		for _, ch := range changes {
			fmt.Fprintf(c.env.stdout, "# remove %s\n", ch.Path)
		}
		return nil
	}
	var l *live
	if c.booted && !c.site.Packaging {
		if l, err = c.dial(ctx); err != nil {
			return err
		}
		defer l.conn.Close()
		if err := plan.Try(changes); err != nil {
			return err
		}
		if err := l.stopApp(ctx, name); err != nil {
			return c.explain(ctx, l, name, err)
		}
	}
	if err := plan.Commit(changes); err != nil {
		return err
	}
	for _, ch := range changes {
		c.say("Removed %s.", ch.Path)
	}
	if l == nil {
		return nil
	}
	return errors.Join(c.forget(ctx, l, name), c.removeRuntime(name))
}

// removeRuntime removes the directory of the control socket: PID 1 makes it and leaves it behind. What somebody else put
// into it stays.
func (c *command) removeRuntime(name app.Name) error {
	os.Remove(c.stoppedNote(name))
	dir := c.env.root + filepath.Dir(name.ControlPath(c.runtimeDir()))
	if err := errors.Join(rollout.Forget(dir), explain.Forget(dir, 0), lifecycle.Forget(dir)); err != nil {
		return err
	}
	err := os.Remove(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return err
}

// forget makes the manager forget the units of a removed app, those that failed too.
func (c *command) forget(ctx context.Context, l *live, name app.Name) error {
	if err := c.reload(ctx, l); err != nil {
		return err
	}
	loaded, err := l.conn.ListUnits(ctx, append(name.Units(),
		string(name)+"@*.service", string(name)+"@*.socket", string(name)+"-join@*.service")...)
	if err != nil {
		return err
	}
	var failed []error
	for _, unit := range loaded {
		if unit.ActiveState == "failed" {
			failed = append(failed, l.conn.ResetFailed(ctx, unit.Name))
		}
	}
	return errors.Join(failed...)
}
