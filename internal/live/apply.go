package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Applying is how a plan is carried out.
type Applying struct {
	Now     bool   // enable the app, start it and wait until its instances are up
	Release func() // lets other runs into the site; called before a start, which may take its time
}

// application is one plan under way.
type application struct {
	*Manager
	Applying
	plan  *plan.Plan
	name  app.Name
	state State // before
	moved bool  // it has other listeners, so it is stopped and started again
}

// Apply carries out a plan. A failed start leaves the units as they are written: they are what the
// user asked for, and what the journal speaks of.
func (m *Manager) Apply(ctx context.Context, p *plan.Plan, how Applying) error {
	a := &application{Manager: m, Applying: how, plan: p, name: p.App.Name}
	if err := a.look(ctx); err != nil {
		return err
	}
	if a.moved {
		if err := a.announceStop(); err != nil {
			return err
		}
		defer func() {
			if ctx.Err() == nil {
				os.Remove(m.stoppedNote(a.name))
			}
		}()
		if err := m.stopApp(ctx, a.name); err != nil {
			return goesOn(ctx, m.explain(ctx, a.name, err), a.status(a.name),
				"%s stops, as its listeners change, and nothing is written yet; the same command again finishes it", a.name)
		}
	}
	if err := a.write(ctx); err != nil {
		return err
	}
	var err error
	if a.moved {
		err = a.startAgain(ctx)
	} else {
		err = m.explain(ctx, a.name, a.scale(ctx))
	}
	if err != nil {
		return err
	}
	if err := a.armTriggers(ctx); err != nil {
		return m.explain(ctx, a.name, err)
	}
	return a.finish(ctx)
}

// look finds out what the app does, and whether an earlier run was killed while it had the app
// stopped.
func (a *application) look(ctx context.Context) (err error) {
	if a.state, err = a.State(ctx, a.name); err != nil {
		return err
	}
	a.moved = a.plan.ListenChanges() && a.state.Open
	unit := a.wasStopped(a.name)
	switch {
	case unit != "" && a.state.Serving:
		os.Remove(a.stoppedNote(a.name)) // somebody has started it meanwhile
	case unit != "":
		a.state, a.moved = State{Serving: unit == a.name.Service(), Open: true}, true
	}
	return nil
}

// announceStop makes sure that the changes can be made, and that a run after this one knows that
// the app is stopped.
func (a *application) announceStop() error {
	if err := plan.Try(a.plan.Changes); err != nil {
		return err
	}
	a.Tell(Event{Step: Stopping, App: a.name})
	return a.noteStopped()
}

// write makes the changes, and makes PID 1 read them. If the changes fail, write starts the units
// again that were stopped for them.
func (a *application) write(ctx context.Context) error {
	p := a.plan
	// Stop the units before their files go: a timer fails when PID 1 finds that its service is
	// gone.
	if err := a.stopUnits(ctx, p.Disarm); err != nil {
		return a.explain(ctx, a.name, err)
	}
	if err := p.Write(); err != nil {
		if a.state.Serving {
			err = errors.Join(err, a.Conn.Run(ctx, jobs(systemd.Start, p.Disarm)...))
		}
		if a.moved {
			err = errors.Join(err, a.Conn.Run(ctx, systemd.Job{Verb: systemd.Start, Unit: a.toStart()}))
		}
		return err
	}
	for _, e := range Written(p) {
		a.Tell(e)
	}
	enabled := false
	if a.Applying.Now {
		var err error
		if enabled, err = a.Conn.EnableUnitFiles(ctx, a.name.Service()); err != nil {
			return err
		}
	}
	if len(p.Changes) == 0 && !enabled {
		return nil
	}
	if err := a.adoptJoined(ctx); err != nil {
		return err
	}
	return a.reload(ctx)
}

// adoptJoined notes which instances of a running app have joined, if its units are the first that look
// for that. Without the notes, PID 1 would start the unit for all beside the instances.
func (a *application) adoptJoined(ctx context.Context) error {
	first := func(c plan.Change) bool { return filepath.Base(c.Path) == a.name.JoinAll() && c.Verb() == "create" }
	if a.plan.Was == nil || !slices.ContainsFunc(a.plan.Changes, first) {
		return nil
	}
	units, err := a.Conn.ListUnits(ctx, string(a.name)+"-join@*.service")
	if err != nil {
		return err
	}
	var joined []int
	for _, u := range units {
		if unit, ok := a.name.ParseUnit(u.Name); ok && u.ActiveState == "active" {
			joined = append(joined, unit.Instance)
		}
	}
	if len(joined) == 0 {
		return nil
	}
	return lifecycle.AdoptJoined(a.appDir(a.name), joined)
}

func (m *Manager) reload(ctx context.Context) error {
	begin := m.Now()
	if err := m.Conn.Reload(ctx); err != nil {
		return err
	}
	m.Tell(Event{Step: Reloaded, Took: m.Now().Sub(begin)})
	return nil
}

// startAgain starts what stop stopped; an app that was idle gets its port back and no more.
func (a *application) startAgain(ctx context.Context) error {
	a.Tell(Event{Step: Starting, App: a.name})
	if a.state.Serving {
		return a.Start(ctx, a.plan.App)
	}
	return a.explain(ctx, a.name, a.Conn.Run(ctx, systemd.Job{Verb: systemd.Start, Unit: a.name.Socket()}))
}

// toStart returns the unit that restores the app's earlier state.
func (a *application) toStart() string {
	if a.state.Serving {
		return a.name.Service()
	}
	return a.name.Socket()
}

// stoppedNote is a file that is there while unitgen has an app stopped. If it is killed then, the
// next run finds the note, and starts again what the other one stopped.
func (m *Manager) stoppedNote(name app.Name) string {
	return m.Site.Root + filepath.Join(m.RuntimeDir(), "unitgen-stopped-"+string(name))
}

func (a *application) noteStopped() error {
	err := os.WriteFile(a.stoppedNote(a.name), []byte(a.toStart()), 0o600)
	if err != nil {
		return fmt.Errorf("note that %s is stopped: %w", a.name, err)
	}
	return nil
}

// wasStopped is the unit that a run which was killed had yet to start; empty for none.
func (m *Manager) wasStopped(name app.Name) string {
	unit, _ := os.ReadFile(m.stoppedNote(name))
	return string(unit)
}

// status is the command that shows what an interrupted command has left.
func (m *Manager) status(name app.Name) string {
	hint := "unitgen status " + string(name)
	if m.Site.UserUnits {
		hint += " --user-units"
	}
	return hint
}

// scale starts the instances that were added to a running app and stops those that were dropped,
// and touches no other unit. A dropped instance's socket goes after it: its queue is moved to the
// others before.
func (a *application) scale(ctx context.Context) error {
	p, name := a.plan, a.name
	if len(p.Add) > 0 && a.state.Serving {
		_, err := a.followed(ctx, name, systemd.Start, p.Add, nil, nil, func(ctx context.Context) error {
			return a.Conn.Run(ctx, jobs(systemd.Start, unitNames(p.Add, name.Instance))...)
		})
		if err != nil {
			return goesOn(ctx, err, a.status(name), "systemd goes on to start %s", instanceNames(name, p.Add))
		}
		a.Tell(Event{Step: Started, App: name, Instances: p.Add})
	}
	if len(p.Drop) > 0 && a.state.Open {
		_, err := a.followed(ctx, name, stopSome, p.Drop, nil, nil, func(ctx context.Context) error {
			return a.stopUnits(ctx, unitNames(p.Drop, name.Instance))
		})
		if err != nil && ctx.Err() != nil {
			err = errors.Join(err, a.stopLater(unitNames(p.Drop, name.InstanceSocket)))
			return goesOn(ctx, err, a.status(name), "systemd goes on to stop %s when %s drained", instanceNames(name, p.Drop), have(p.Drop))
		}
		if err != nil {
			return err
		}
		if err := a.stopUnits(ctx, unitNames(p.Drop, name.InstanceSocket)); err != nil {
			return err
		}
		a.Tell(Event{Step: Stopped, App: name, Instances: p.Drop})
	}
	return nil
}

// have is the verb for instances.
func have(instances []int) string {
	if len(instances) == 1 {
		return "it has"
	}
	return "they have"
}

// stopLater has PID 1 stop sockets after the services that use them, when nobody waits for that.
func (m *Manager) stopLater(sockets []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), laterLimit) // the command's own has ended
	defer cancel()
	var errs []error
	for _, socket := range sockets {
		errs = append(errs, m.Conn.Enqueue(ctx, systemd.Job{Verb: systemd.Stop, Unit: socket}))
	}
	return errors.Join(errs...)
}

// laterLimit is for requests to PID 1 after the command was ended, while somebody waits for the
// prompt.
const laterLimit = 2 * time.Second

// armTriggers starts the new or changed timers and watches of a running app. It does not start the
// services that these trigger.
func (a *application) armTriggers(ctx context.Context) error {
	if !a.state.Serving {
		return nil
	}
	var list []systemd.Job
	for _, unit := range a.plan.App.Triggers() {
		if slices.Contains(a.plan.Arm, unit) || slices.ContainsFunc(a.plan.Changes, func(ch plan.Change) bool { return filepath.Base(ch.Path) == unit }) {
			list = append(list, systemd.Job{Verb: systemd.Restart, Unit: unit})
		}
	}
	return a.Conn.Run(ctx, list...)
}

// finish starts the app, or says what is left to do.
func (a *application) finish(ctx context.Context) error {
	switch {
	case a.Applying.Now && !(a.moved && a.state.Serving):
		a.Release()
		if err := a.startApp(ctx, a.plan.App, a.plan.Effect() != plan.EffectNone); err != nil {
			return err
		}
	case a.plan.Was == nil:
		a.Tell(Event{Step: NotStarted, App: a.name, Command: a.systemctl() + "enable --now " + string(a.name)})
	}
	if e := a.plan.Effect(); e != plan.EffectNone && a.state.Serving && !a.moved {
		a.Tell(Event{Step: OldSettings, App: a.name, Command: e.Command(a.systemctl(), a.name)})
	}
	if a.Site.UserUnits && !a.Lingers() {
		a.Tell(Event{Step: EndsAtLogout, App: a.name, Command: "loginctl enable-linger " + a.UserName})
	}
	return nil
}

func unitNames(instances []int, unit func(int) string) []string {
	units := make([]string, len(instances))
	for i, n := range instances {
		units[i] = unit(n)
	}
	return units
}
