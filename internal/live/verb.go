package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/systemd"
)

// ErrCancelled says that a rollout was cancelled, as the user wanted.
var ErrCancelled = errors.New("the reload was cancelled")

// Interruption is what becomes of a rollout when somebody wants to end the command. With the zero
// value the rollout goes on.
type Interruption struct {
	Wanted <-chan struct{} // closed when somebody does
	Cancel func() bool     // asks whether the rollout is to be cancelled too; it runs in a goroutine of its own
}

// Do stops or reloads the app as systemctl does. It tells what happens to each instance, and says
// why an instance failed. When ctx ends, systemd goes on.
func (m *Manager) Do(ctx context.Context, a app.App, verb systemd.Verb, interruption Interruption) error {
	began := m.Now()
	if verb == systemd.Reload {
		if err := m.reloadable(ctx, a.Name); err != nil {
			return err
		}
	}
	loaded, err := m.Conn.Instances(ctx, a.Name)
	if err != nil {
		return err
	}
	numbers := m.Site.Instances(a.Name)
	highest := 0
	for _, in := range loaded {
		if in.ActiveState != "inactive" && !slices.Contains(numbers, in.Number) {
			numbers = append(numbers, in.Number)
		}
	}
	for _, i := range numbers {
		highest = max(highest, i)
	}
	var extra []int
	if verb == systemd.Reload {
		for i := highest + 1; i <= min(highest+surge(a, len(numbers)), app.MaxInstances); i++ {
			extra = append(extra, i)
		}
	}
	cancelled := false
	failed, err := m.followed(ctx, a.Name, verb, numbers, extra, nil, func(ctx context.Context) (err error) {
		cancelled, err = m.runUnlessCancelled(ctx, systemd.Job{Verb: verb, Unit: a.Name.Service()}, a.Name, interruption)
		return err
	})
	switch {
	case err == nil && verb == systemd.Reload:
		m.Tell(Event{Step: Ready, App: a.Name, Instances: m.Site.Instances(a.Name), Listen: a.Listen, Path: a.DataPath()})
		return nil
	case err == nil || ctx.Err() != nil:
		return goesOn(ctx, err, m.status(a.Name), "%s", map[systemd.Verb]string{
			systemd.Stop:   "systemd goes on to stop " + string(a.Name) + " when its instances have drained",
			systemd.Reload: "systemd goes on to reload " + string(a.Name),
		}[verb])
	case cancelled:
		return fault.With(fmt.Errorf("%w; instances that were renewed keep the new code, the others the old", ErrCancelled), m.systemctl()+"reload "+string(a.Name))
	}
	return m.whyFailed(ctx, a.Name, verb, failed, began, err)
}

// runUnlessCancelled runs a job of the app until it ends. If somebody wants to end the command and
// cancels the rollout, the job fails.
func (m *Manager) runUnlessCancelled(ctx context.Context, j systemd.Job, name app.Name, interruption Interruption) (cancelled bool, err error) {
	job := make(chan error, 1)
	go func() { job <- m.Conn.Run(ctx, j) }() // awaited below
	answers := make(chan bool, 1)
	wanted := interruption.Wanted
	for {
		select {
		case err := <-job:
			return cancelled, err
		case <-wanted:
			wanted = nil
			go func() { answers <- interruption.Cancel() }() // ends with the answer, or with the process
		case cancelled = <-answers:
			if !cancelled {
				continue
			}
			if err := m.cancelReload(ctx, name); err != nil {
				return true, err
			}
		}
	}
}

// RestartInstance restarts one instance, which drains first. It tells each step, and says
// why the instance failed.
func (m *Manager) RestartInstance(ctx context.Context, a app.App, number int) error {
	began := m.Now()
	failed, err := m.followed(ctx, a.Name, restartSome, []int{number}, nil, nil, func(ctx context.Context) error {
		return m.Conn.Run(ctx, systemd.Job{Verb: systemd.Restart, Unit: a.Name.Instance(number)})
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	return m.whyFailed(ctx, a.Name, systemd.Restart, failed, began, err)
}

// reloadable says why there is nothing to reload, in other words than PID 1's.
func (m *Manager) reloadable(ctx context.Context, name app.Name) error {
	state, err := m.State(ctx, name)
	switch {
	case err != nil || state.Serving:
		return err
	case state.Open:
		return fault.With(fmt.Errorf("%s is idle: the next connection starts it, with the new code", name), "")
	}
	return fault.With(fmt.Errorf("%s does not run", name), "unitgen start "+string(name))
}

// surge is how many extra instances a rollout may add.
func surge(a app.App, instances int) int {
	switch n, err := strconv.Atoi(a.Surge); {
	case a.Surge == "all":
		return instances
	case err == nil:
		return max(n, 0)
	}
	return 1
}

// cancelReload tells the process of a rollout to end. That process then removes the extra
// instances, and lets an instance that it renews get ready. A rollout that has ended meanwhile is
// no error.
func (m *Manager) cancelReload(ctx context.Context, name app.Name) error {
	u, err := m.Conn.Unit(ctx, name.Service())
	if err != nil || u.ActiveState != "reloading" || u.ControlPID == 0 {
		return err
	}
	return m.Conn.KillControl(ctx, name.Service(), "SIGTERM")
}

// whyFailed adds the reasons to a job that failed.
func (m *Manager) whyFailed(ctx context.Context, name app.Name, verb systemd.Verb, failed []int, began time.Time, err error) error {
	q := m.Question(name)
	q.Since = began
	if all, e := q.Instances(ctx, failed); e == nil && len(all) > 0 {
		var why []error
		if verb == systemd.Reload {
			why = append(why, fault.With(fmt.Errorf("the reload of %s failed; instances that were not reached keep the old code", name), ""))
		}
		for _, f := range all {
			why = append(why, fault.With(errors.New(f.String()), f.Hint))
		}
		return errors.Join(why...)
	}
	if verb == systemd.Reload {
		if u, e := m.Conn.Unit(ctx, name.Service()); e == nil {
			if line, _, _ := strings.Cut(u.StatusText, "; "); strings.HasPrefix(line, "rollout failed: ") || strings.HasPrefix(line, "reload refused: ") {
				return fault.With(errors.New(line), "unitgen logs "+string(name))
			}
		}
		return fault.With(err, "unitgen logs "+string(name))
	}
	return m.explain(ctx, name, err)
}
