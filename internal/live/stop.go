package live

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/rollout"
	"github.com/unitgen/unitgen/internal/systemd"
)

// jobs is one job of verb for each unit.
func jobs(verb systemd.Verb, units []string) []systemd.Job {
	list := make([]systemd.Job, len(units))
	for i, unit := range units {
		list[i] = systemd.Job{Verb: verb, Unit: unit}
	}
	return list
}

// stopTries is how often a stop is requested if it is cancelled: a connection at that moment makes
// PID 1 start the app instead of stopping it.
const stopTries = 3

// stopUnits stops units, and does not mind those that do not exist.
func (m *Manager) stopUnits(ctx context.Context, units []string) (err error) {
	for range stopTries {
		var failed []error
		canceled := false
		for _, part := range app.Parts(m.Conn.Run(ctx, jobs(systemd.Stop, units)...)) {
			if systemd.IsNoSuchUnit(part) {
				continue
			}
			var job *systemd.JobError
			canceled = canceled || errors.As(part, &job) && job.Result == "canceled"
			failed = append(failed, part)
		}
		if err = errors.Join(failed...); !canceled {
			break
		}
	}
	return err
}

// stopApp stops an app with all its sockets: first the shim, which drains and closes its instances,
// then the rest, such as the sockets of an idle app.
func (m *Manager) stopApp(ctx context.Context, name app.Name) error {
	// With the sockets in the same request, waiting connections cannot start the shim again. PID 1
	// stops the sockets after the shim.
	if err := m.stopUnits(ctx, []string{name.Socket(), name.ControlSocket(), name.Service()}); err != nil {
		return err
	}
	// The join units end with their sockets (BindsTo=), and cannot be stopped directly
	// (RefuseManualStop=).
	loaded, err := m.Conn.ListUnits(ctx, string(name)+"@*.service", string(name)+"@*.socket")
	if err != nil {
		return err
	}
	var services, sockets []string
	services = append(services, name.Triggers()...)
	for _, unit := range name.Units() {
		if strings.HasSuffix(unit, ".socket") && !strings.Contains(unit, "@") {
			sockets = append(sockets, unit)
		}
	}
	for _, unit := range loaded {
		switch {
		case unit.ActiveState == "inactive":
		case strings.HasSuffix(unit.Name, ".socket"):
			sockets = append(sockets, unit.Name)
		default:
			services = append(services, unit.Name)
		}
	}
	// Services first: the queue of a socket would trigger its service again.
	return errors.Join(m.stopUnits(ctx, services), m.stopUnits(ctx, sockets))
}

// Remove stops an app, makes the changes that remove its files and links, and has the manager
// forget its units. Nothing is stopped if the changes cannot be made.
func (m *Manager) Remove(ctx context.Context, name app.Name, changes []plan.Change) error {
	if err := plan.Try(changes); err != nil {
		return err
	}
	_, err := m.followed(ctx, name, systemd.Stop, m.Site.Instances(name), nil, nil, func(ctx context.Context) error { return m.stopApp(ctx, name) })
	if err != nil {
		return goesOn(ctx, m.explain(ctx, name, err), "unitgen remove "+string(name),
			"systemd goes on to stop %s when its instances have drained, and its files are still there", name)
	}
	if err := plan.Commit(changes); err != nil {
		return err
	}
	for _, e := range Removed(name, changes) {
		m.Tell(e)
	}
	return errors.Join(m.forget(ctx, name), m.removeRuntime(name))
}

// removeRuntime removes the notes of an app, and the directory of the control socket, which PID 1
// makes and leaves behind. Files of others stay.
func (m *Manager) removeRuntime(name app.Name) error {
	os.Remove(m.stoppedNote(name))
	dir := m.appDir(name)
	if err := errors.Join(removeNotes(m.drainNotes(name)), rollout.Forget(dir), explain.Forget(dir, 0), lifecycle.Forget(dir)); err != nil {
		return err
	}
	err := os.Remove(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return err
}

// forget makes the manager forget the units of a removed app, those that failed too.
func (m *Manager) forget(ctx context.Context, name app.Name) error {
	if err := m.reload(ctx); err != nil {
		return err
	}
	loaded, err := m.Conn.ListUnits(ctx, append(name.Units(),
		string(name)+"@*.service", string(name)+"@*.socket", string(name)+"-join@*.service")...)
	if err != nil {
		return err
	}
	var failed []error
	for _, unit := range loaded {
		if unit.ActiveState == "failed" {
			failed = append(failed, m.Conn.ResetFailed(ctx, unit.Name))
		}
	}
	return errors.Join(failed...)
}
