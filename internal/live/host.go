package live

import (
	"cmp"
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
)

// callTimeout is for a shim that is just being restarted. One that runs answers within
// milliseconds.
const callTimeout = 30 * time.Second

// HostDrain is how a host is drained of an app.
type HostDrain struct {
	Persist bool // over a reboot too
}

// drainNotes are the files by which the drain of a host outlives the shim, the second one a reboot
// too.
func (o Options) drainNotes(name app.Name) (runtime, persistent string) {
	return o.Site.Root + name.DrainNote(o.RuntimeDir()), o.Site.Root + name.PersistentDrainNote(app.StateDir(o.Site.UserUnits, o.Getenv))
}

// DrainedSince is when the drain of this host of an app began; nil if it is not drained.
func (o Options) DrainedSince(name app.Name) *time.Time {
	runtime, persistent := o.drainNotes(name)
	for _, note := range []string{runtime, persistent} {
		if info, err := os.Stat(note); err == nil {
			since := info.ModTime()
			return &since
		}
	}
	return nil
}

// DrainHost tells load balancers to send this host nothing more for an app, which may run or not.
// The note comes first: a shim that is started meanwhile reads it. If the shim cannot be told, the
// host is not drained. serving says whether one was told.
func (m *Manager) DrainHost(ctx context.Context, name app.Name, how HostDrain) (serving bool, err error) {
	state, err := m.State(ctx, name)
	if err != nil {
		return false, err
	}
	runtime, persistent := m.drainNotes(name)
	notes := []string{runtime}
	if how.Persist {
		notes = append(notes, persistent)
	}
	fresh, err := writeNotes(notes...)
	if err != nil {
		return false, fault.With(fmt.Errorf("note the drain: %w", err), m.asRoot(err))
	}
	if state.Serving { // a connection to its socket would start it
		if err := m.tellHost(ctx, name, control.HostDrain{Drain: true}); err != nil {
			return false, errors.Join(err, removeNotes(fresh...))
		}
	}
	return state.Serving, nil
}

// UndrainHost ends the drain of this host. A host that is not drained stays so.
func (m *Manager) UndrainHost(ctx context.Context, name app.Name) error {
	state, err := m.State(ctx, name)
	if err != nil {
		return err
	}
	runtime, persistent := m.drainNotes(name)
	if err := removeNotes(runtime, persistent); err != nil {
		return fault.With(err, m.asRoot(err))
	}
	if !state.Serving {
		return nil
	}
	return m.tellHost(ctx, name, control.HostDrain{})
}

// tellHost tells the shim of a running app, also one that is just being restarted.
func (m *Manager) tellHost(ctx context.Context, name app.Name, drain control.HostDrain) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var host control.Host
	err := control.Retry(ctx, func() error {
		return control.Call(ctx, m.controlPath(name), control.MethodDrainHost, drain, &host)
	})
	return m.hostError(name, err)
}

// AwaitDrained waits until no connection of a running app is open, over restarts of its shim, for
// limit at most; zero: for as long as it takes.
func (m *Manager) AwaitDrained(ctx context.Context, a app.App, limit time.Duration) error {
	wait := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	path := m.controlPath(a.Name)
	var host control.Host
	err := control.Retry(wait, func() error { return control.Wait(wait, path, control.MethodHostDrained, struct{}{}, &host) })
	if err == nil || wait.Err() == nil || ctx.Err() != nil {
		return m.hostError(a.Name, err)
	}
	open := "connections are"
	if err := control.Call(ctx, path, control.MethodHost, struct{}{}, &host); err == nil && host.Connections >= 0 {
		open = fmt.Sprintf("%d connections", host.Connections)
		if host.Connections == 1 {
			open = "1 connection"
		}
	}
	return fault.With(fmt.Errorf("%s still open after %s", open, app.FormatTimeSpan(limit)), showPeers(a))
}

// showPeers is a command that shows who is connected to the app.
func showPeers(a app.App) string {
	for _, l := range a.Listen {
		if !l.IsUnix() {
			return fmt.Sprintf("ss -tn 'sport = :%d'", l.Port)
		}
	}
	return "ss -xp"
}

// hostError says what to do about a call that failed.
func (m *Manager) hostError(name app.Name, err error) error {
	var refused *control.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused) && refused.Name == control.ErrMethodNotFound:
		return fault.With(errors.New("the running balancer is older than unitgen and cannot drain a host"), m.systemctl()+"restart "+string(name))
	}
	return fault.With(err, cmp.Or(m.asRoot(err), "unitgen status "+string(name)))
}

// asRoot is what to do about a file or a socket that is root's; empty for other errors.
func (m *Manager) asRoot(err error) string {
	if errors.Is(err, os.ErrPermission) && !m.Site.UserUnits {
		return "run it as root (sudo): only root may drain a host"
	}
	return ""
}

// writeNotes makes all notes or none, and returns those that were not there: the time of one that
// was is when the drain began.
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
