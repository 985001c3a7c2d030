package live

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/systemd"
)

// failuresToTell is how often an instance must end before it was ready until the start stops
// waiting for it: one failure may be a race with another unit that starts. PID 1 continues to try.
const failuresToTell = 2

// startMargin is what the instances have beyond the start time-out, as PID 1 starts sockets and
// commands before them.
const startMargin = 10 * time.Second

// starting is one instance that is waited for.
type starting struct {
	up    bool
	gone  bool            // it has ended, and PID 1 does not start it again
	ended map[string]bool // runs that ended before they were ready
	old   string          // the run before the wait began, perhaps by the settings before: its end says nothing
	renew bool            // nor does it count that the old run is up
}

// told takes in PID 1's word on the instance.
func (s *starting) told(u systemd.UnitState) {
	old := u.InvocationID == s.old
	s.up = u.Up() && !(s.renew && old)
	s.gone = u.ActiveState == "failed" && u.Failed() && !u.AwaitsRestart() && !(s.renew && old)
	if u.Failed() && !old {
		s.ended[u.InvocationID] = true
	}
}

// Start starts the app and waits until all of its instances are up, have failed failuresToTell
// times, or the start time-out has passed. It reports how many are up and, in its error, why the
// others are not. When ctx ends, systemd goes on.
func (m *Manager) Start(ctx context.Context, a app.App) error { return m.startApp(ctx, a, false) }

// startApp is Start. changed says that the units of the instances are not those that runs before
// began with.
func (m *Manager) startApp(ctx context.Context, a app.App, changed bool) error {
	began := m.Now()
	waiting, err := m.retry(ctx, a.Name, m.Site.Instances(a.Name), changed)
	if err != nil {
		return err
	}
	return m.start(ctx, a, systemd.Start, waiting, began)
}

// Restart stops the app, which drains, and then does what Start does.
func (m *Manager) Restart(ctx context.Context, a app.App) error {
	began := m.Now()
	waiting := make(map[string]*starting)
	for _, i := range m.Site.Instances(a.Name) {
		u, err := m.Conn.Active(ctx, a.Name.Instance(i))
		if err != nil {
			return err
		}
		waiting[u.Name] = &starting{ended: make(map[string]bool), old: u.InvocationID, renew: true}
	}
	return m.start(ctx, a, systemd.Restart, waiting, began)
}

// start carries out verb and waits for the instances.
func (m *Manager) start(ctx context.Context, a app.App, verb systemd.Verb, waiting map[string]*starting, began time.Time) error {
	numbers := m.Site.Instances(a.Name)
	states := make(chan systemd.UnitState)
	_, err := m.followed(ctx, a.Name, verb, numbers, nil, states, func(ctx context.Context) error { return m.await(ctx, a, verb, waiting, states) })
	up := 0
	for _, s := range waiting {
		if s.up {
			up++
		}
	}
	switch {
	case ctx.Err() != nil:
		return goesOn(ctx, ctx.Err(), m.status(a.Name), "systemd goes on to %s %s", verb.Word(), a.Name)
	case len(numbers) == 0:
		return fault.With(fmt.Errorf("no instance of %s is enabled", a.Name), "unitgen scale "+string(a.Name)+" 1")
	case up == 0 && err != nil:
		return m.explain(ctx, a.Name, err)
	case up == 0:
		if why := m.reasons(ctx, a.Name, began); len(why) > 0 {
			return errors.Join(why...)
		}
	case up == len(numbers):
		m.Tell(Event{Step: Ready, App: a.Name, Instances: numbers, Listen: a.Listen, Path: a.DataPath()})
		return nil
	}
	line := upLine(a.Name, up, len(numbers), a.Listen, a.DataPath())
	return errors.Join(append([]error{fault.With(errors.New(line), "")}, m.reasons(ctx, a.Name, began)...)...)
}

// retry prepares the wait. It starts an instance at once that has failed and waits for its next
// try, and one that starts with the settings before a change: nobody uses that one yet, and its
// failure would be the new settings' own.
func (m *Manager) retry(ctx context.Context, name app.Name, numbers []int, changed bool) (map[string]*starting, error) {
	waiting := make(map[string]*starting)
	loaded, err := m.Conn.Instances(ctx, name, numbers...)
	if err != nil {
		return nil, err
	}
	for _, i := range numbers {
		waiting[name.Instance(i)] = &starting{ended: make(map[string]bool)}
	}
	for _, in := range loaded {
		s := waiting[in.Name]
		if s == nil || in.ActiveState == "inactive" {
			continue
		}
		u, err := m.Conn.Unit(ctx, in.Name)
		if err != nil {
			return nil, err
		}
		s.old = u.InvocationID
		if !u.Failed() && !(changed && u.ActiveState == "activating") {
			continue
		}
		s.renew = changed
		for _, failed := range []string{u.Name, name.InstanceSocket(in.Number)} {
			if err := m.Conn.ResetFailed(ctx, failed); err != nil {
				return nil, err
			}
		}
		if err := m.Conn.Enqueue(ctx, systemd.Job{Verb: systemd.Restart, Unit: u.Name}); err != nil {
			return nil, err
		}
	}
	return waiting, nil
}

// await runs the app's job and reads the states of its instances. The error is that of the app's
// job, which may still run when all instances have failed.
func (m *Manager) await(ctx context.Context, a app.App, verb systemd.Verb, waiting map[string]*starting, states <-chan systemd.UnitState) error {
	merges, err := m.merges(ctx, a.Name, verb)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	job := make(chan error, 1)
	begin := func() { job <- m.Conn.Run(ctx, systemd.Job{Verb: verb, Unit: a.Name.Service()}) }
	go begin()
	running := job
	defer func() {
		cancel()
		if running != nil {
			<-running
		}
	}()
	most := a.StartTimeoutOrDefault()
	if verb == systemd.Restart {
		most += a.LongestStop() // of the old run
	}
	limit := time.NewTimer(most)
	defer limit.Stop()
	over := time.NewTimer(most + startMargin)
	defer over.Stop()
	enough := failuresToTell // failures of an instance
	var failed error
	for !settled(waiting, enough, running == nil) {
		select {
		case u := <-states:
			if s := waiting[u.Name]; s != nil {
				s.told(u)
			}
		case err := <-running:
			if err != nil && merges && !anyEnded(waiting) {
				merges = false
				go begin()
				continue
			}
			running, failed = nil, err
			if err := m.findStopped(ctx, a.Name, waiting); err != nil {
				return err
			}
			if err != nil && enough > 1 && !anyEnded(waiting) {
				return err // it is not the instances: the sockets, or the balancer itself
			}
		case <-limit.C:
			enough = 1 // a run that has failed had all the time that there is
		case <-over.C:
			return failed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return failed
}

// merges reports whether PID 1 would merge a start job into one that is under way, which may fail
// because of the settings before.
func (m *Manager) merges(ctx context.Context, name app.Name, verb systemd.Verb) (bool, error) {
	if verb != systemd.Start {
		return false, nil
	}
	u, err := m.Conn.Unit(ctx, name.Service())
	return u.JobType != "", err
}

// findStopped finds instances that no job starts, although the app's job, which wants them, is
// done.
func (m *Manager) findStopped(ctx context.Context, name app.Name, waiting map[string]*starting) error {
	loaded, err := m.Conn.Instances(ctx, name)
	if err != nil {
		return err
	}
	stopped := maps.Clone(waiting)
	for _, u := range loaded {
		if !u.Dead() || u.JobType != "" || u.AwaitsRestart() {
			delete(stopped, u.Name)
		}
	}
	for _, s := range stopped {
		s.gone = true
	}
	return nil
}

func anyEnded(waiting map[string]*starting) bool {
	for _, s := range waiting {
		if len(s.ended) > 0 {
			return true
		}
	}
	return false
}

// settled reports whether nothing is left to wait for. started means that the app's job is done.
func settled(waiting map[string]*starting, enough int, started bool) bool {
	up := 0
	for _, s := range waiting {
		switch {
		case s.up:
			up++
		case !s.gone && len(s.ended) < enough:
			return false
		}
	}
	return up == 0 || started
}
