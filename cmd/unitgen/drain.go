package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/live"
)

// drainNotes are the files by which the drain of a host outlives the balancer, the second one a reboot too.
func (c *command) drainNotes(name app.Name) (runtime, persistent string) {
	return c.env.root + name.DrainNote(c.live().RuntimeDir()),
		c.env.root + name.PersistentDrainNote(app.StateDir(c.site.UserUnits, c.env.getenv))
}

// drainedSince is when the drain of the host began; nil if it is not drained.
func (c *command) drainedSince(name app.Name) *time.Time {
	runtime, persistent := c.drainNotes(name)
	for _, note := range []string{runtime, persistent} {
		if info, err := os.Stat(note); err == nil {
			since := info.ModTime()
			return &since
		}
	}
	return nil
}

// ofHost is the app of drain and undrain, and whether it runs: a connection to its socket would start it.
func (c *command) ofHost(ctx context.Context) (a app.App, serving bool, err error) {
	name, err := c.appName()
	if err != nil {
		return a, false, err
	}
	text, err := c.site.Find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return a, false, c.noApp(name)
	}
	if err != nil {
		return a, false, err
	}
	if a, err = app.ParseSettings(name, text); err != nil {
		return a, false, c.noApp(name)
	}
	if !c.booted {
		return a, false, fault.With(errors.New("systemd does not run here, so no app runs"), "unitgen list")
	}
	m, err := live.Dial(ctx, c.live())
	if err != nil {
		return a, false, err
	}
	defer m.Close()
	state, err := m.State(ctx, name)
	return a, state.Serving, err
}

// drain tells load balancers to send this host nothing more. The note comes first: a balancer that is started meanwhile reads it.
func (c *command) drain(ctx context.Context) error {
	limit, err := c.drainLimit()
	if err != nil {
		return err
	}
	a, serving, err := c.ofHost(ctx)
	if err != nil {
		return err
	}
	runtime, persistent := c.drainNotes(a.Name)
	notes := []string{runtime}
	if c.options.persist {
		notes = append(notes, persistent)
	}
	fresh, err := writeNotes(notes...)
	if err != nil {
		return fault.With(fmt.Errorf("note the drain: %w", err), c.asRoot(err))
	}
	if serving {
		if _, err := c.drainHost(ctx, a.Name, true); err != nil {
			return errors.Join(err, removeNotes(fresh...))
		}
	}
	c.say("%s is drained on this host. Take it back with: unitgen undrain %s", a.Name, a.Name)
	if a.Agent == (app.Listen{}) {
		c.say("Note: %s has no agent, so load balancers do not learn of this: unitgen %s --agent=9999", a.Name, a.Name)
	}
	if !c.options.wait || !serving {
		return nil
	}
	return c.awaitDrained(ctx, a.Name, limit)
}

// drainLimit is how long --wait waits; zero: for as long as it takes.
func (c *command) drainLimit() (time.Duration, error) {
	if !c.options.given["timeout"] {
		return 0, nil
	}
	if !c.options.wait {
		return 0, inputf("--wait --timeout=60s", "--timeout= needs --wait")
	}
	limit, err := app.ParseTimeSpan(c.options.timeout)
	if err != nil || limit <= 0 {
		return 0, inputf("--timeout=60s", "--timeout= must be a time span such as \"60s\", got %q", c.options.timeout)
	}
	return limit, nil
}

// undrain ends the drain.
func (c *command) undrain(ctx context.Context) error {
	a, serving, err := c.ofHost(ctx)
	if err != nil {
		return err
	}
	runtime, persistent := c.drainNotes(a.Name)
	if err := removeNotes(runtime, persistent); err != nil {
		return fault.With(err, c.asRoot(err))
	}
	if serving {
		if _, err := c.drainHost(ctx, a.Name, false); err != nil {
			return err
		}
	}
	c.say("%s is not drained on this host.", a.Name)
	return nil
}

// drainHost tells the balancer, also one that is just being restarted.
func (c *command) drainHost(ctx context.Context, name app.Name, drain bool) (host control.Host, err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	err = control.Retry(ctx, func() error {
		return control.Call(ctx, name.ControlPath(c.live().RuntimeDir()), control.MethodDrainHost, control.HostDrain{Drain: drain}, &host)
	})
	return host, c.hostError(name, err)
}

// hostError says what to do about a call that failed.
func (c *command) hostError(name app.Name, err error) error {
	var refused *control.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission):
		return fault.With(err, c.asRoot(err))
	case errors.As(err, &refused) && refused.Name == control.ErrMethodNotFound:
		return fault.With(errors.New("the running balancer is older than unitgen and cannot drain a host"), c.systemctl("restart "+string(name)))
	}
	return fault.With(err, "unitgen status "+string(name))
}

// awaitDrained waits until no connection is open, over restarts of the balancer.
func (c *command) awaitDrained(ctx context.Context, name app.Name, limit time.Duration) error {
	wait := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	path := name.ControlPath(c.live().RuntimeDir())
	var host control.Host
	err := control.Retry(wait, func() error { return control.Wait(wait, path, control.MethodHostDrained, struct{}{}, &host) })
	switch {
	case err == nil:
		c.say("No connection is open.")
		return nil
	case wait.Err() == nil || ctx.Err() != nil:
		return c.hostError(name, err)
	}
	if err := control.Call(ctx, path, control.MethodHost, struct{}{}, &host); err != nil || host.Connections < 0 {
		return fault.With(fmt.Errorf("connections are still open after %s", app.FormatTimeSpan(limit)), "unitgen status "+string(name))
	}
	return fault.With(fmt.Errorf("%s still open after %s", counted(host.Connections, "connection"), app.FormatTimeSpan(limit)), "unitgen status "+string(name))
}

// asRoot is what to do about a file or a socket that is root's.
func (c *command) asRoot(err error) string {
	if errors.Is(err, os.ErrPermission) && !c.site.UserUnits {
		return "run it as root (sudo): only root may drain a host"
	}
	return ""
}

// writeNotes makes all notes or none, and returns those that were not there: the time of one that was is when the drain began.
func writeNotes(paths ...string) (fresh []string, err error) {
	for _, path := range paths {
		made, err := writeNote(path)
		if err != nil {
			return nil, errors.Join(err, removeNotes(fresh...))
		}
		if made {
			fresh = append(fresh, path)
		}
	}
	return fresh, nil
}

// writeNote makes an empty file, and reports whether there was none.
func writeNote(path string) (made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return false, errors.Join(err, removeNotes(path))
	}
	return true, nil
}

func removeNotes(paths ...string) error {
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
