package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/rollout"
)

// remove stops and disables an app and deletes its files and links. Drop-ins are the admin's and stay.
func (c *command) remove(ctx context.Context) error {
	name, err := c.appName()
	if err != nil {
		return err
	}
	if !c.options.dryRun {
		release, err := c.lock(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	changes, err := c.removals(name)
	if err != nil {
		return err
	}
	if c.options.dryRun {
		for _, ch := range changes {
			fmt.Fprintf(c.env.stdout, "# remove %s\n", ch.path)
		}
		return nil
	}
	var l *live
	if c.site.booted && !c.site.packaging {
		if l, err = c.dial(ctx); err != nil {
			return err
		}
		defer l.conn.Close()
		if err := try(changes); err != nil {
			return err
		}
		if err := l.stopApp(ctx, name); err != nil {
			return c.explain(ctx, l, name, err)
		}
	}
	if err := commit(changes); err != nil {
		return err
	}
	for _, ch := range changes {
		c.say("Removed %s.", ch.path)
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

// removals lists the files and links of an app. Its settings need not be readable, but app.service must be ours.
func (c *command) removals(name app.Name) ([]change, error) {
	var changes []change
	always := app.App{Name: name}.Units()
	for _, unit := range name.Units() {
		file := filepath.Join(c.site.dir, unit)
		_, err := readUnit(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if unit == name.Service() {
				return nil, c.noApp(name)
			}
		case err != nil && slices.Contains(always, unit):
			return nil, err
		case err != nil: // somebody else's, where this app had nothing
		default:
			changes = append(changes, change{path: file})
		}
	}
	d := &disk{files: make(map[string]string), links: make(map[int]string), foreign: make(map[string]error)}
	d.readPins(c.site.dir, name)
	for _, i := range d.pins {
		changes = append(changes, change{path: filepath.Join(c.site.dir, name.Pin(i))})
	}
	wants := filepath.Join(c.site.dir, name.WantsDir())
	if err := d.readLinks(wants, name); err != nil {
		return nil, err
	}
	for _, i := range d.instances {
		changes = append(changes, change{path: filepath.Join(wants, name.Instance(i))})
	}
	for _, unit := range d.triggers {
		changes = append(changes, change{path: filepath.Join(wants, unit)})
	}
	return append(changes, c.enableLinks(name)...), nil
}

// enableLinks are those that systemctl enable and add-wants made. PID 1 is not asked to remove them: it first reads the
// unit, and refuses one that is damaged.
func (c *command) enableLinks(name app.Name) []change {
	var changes []change
	for _, dir := range []string{"*.wants", "*.requires", "*.upholds"} {
		for _, unit := range []string{name.Service(), name.Socket()} {
			links, _ := filepath.Glob(filepath.Join(c.site.dir, dir, unit))
			for _, link := range links {
				if st, err := os.Lstat(link); err == nil && st.Mode()&fs.ModeSymlink != 0 {
					changes = append(changes, change{path: link})
				}
			}
		}
	}
	return changes
}
