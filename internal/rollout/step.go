package rollout

import (
	"context"
	"errors"
	"fmt"

	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/systemd"
)

// change starts or restarts instances and waits until each is up in a new invocation. The job mode
// is fail: a job that somebody else has queued for an instance is not reversed.
func (r *Rollout) change(ctx context.Context, verb systemd.Verb, numbers []int) error {
	before, err := r.invocations(ctx, numbers)
	if err != nil {
		return err
	}
	for _, number := range numbers {
		if err := r.forgive(ctx, number); err != nil {
			return err
		}
		if err := r.manager.Enqueue(ctx, systemd.Job{Verb: verb, Unit: r.options.App.Instance(number), Mode: systemd.Fail}); err != nil {
			return err
		}
	}
	for _, number := range numbers {
		r.units.Watch(r.options.App.Instance(number))
	}
	limit, cancel := context.WithTimeout(ctx, r.options.Limit)
	defer cancel()
	for _, number := range numbers {
		if err := r.awaitUp(limit, number, before[number]); err != nil {
			return err
		}
		if err := r.options.Steered(limit, number); err != nil {
			return fmt.Errorf("wait for connections to %s: %w", r.options.App.Instance(number), err)
		}
	}
	return nil
}

// forgive resets the traces of earlier starts of an instance: its start limit, which a rollout must
// neither hit nor use up; its count of restarts, by which delays grow; and a socket that failed
// because of the limit (socket_trigger_notify in src/core/socket.c).
func (r *Rollout) forgive(ctx context.Context, number int) error {
	for _, unit := range []string{r.options.App.Instance(number), r.options.App.InstanceSocket(number)} {
		if err := r.manager.ResetFailed(ctx, unit); err != nil {
			return err
		}
	}
	return nil
}

// invocations reads the current invocation of instances, "" for an instance that has never run.
func (r *Rollout) invocations(ctx context.Context, numbers []int) (map[int]string, error) {
	before := make(map[int]string)
	for _, number := range numbers {
		u, err := r.manager.Active(ctx, r.options.App.Instance(number))
		if err != nil {
			return nil, err
		}
		before[number] = u.InvocationID
	}
	return before, nil
}

// awaitUp waits until an instance is active in another invocation than before. Events only say when
// to look, and the state is read again, because the signals of the interfaces of one unit arrive
// one after another.
func (r *Rollout) awaitUp(ctx context.Context, number int, before string) error {
	unit := r.options.App.Instance(number)
	for {
		u, err := r.manager.Active(ctx, unit)
		if err == nil && !underWay(u, before) && !renewed(u, before) {
			u, err = r.manager.Unit(ctx, unit) // all of it, to judge
		}
		switch {
		case err != nil:
			return err
		case renewed(u, before):
			r.fresh[number] = u.InvocationID
			return nil
		case u.InvocationID != before && u.Ended():
			if same, err := r.still(ctx, u); err != nil || !same {
				continue
			}
			return r.failure(ctx, u, "did not get ready")
		case u.ActiveState == "inactive" && u.JobType == "":
			// Between the halves of a restart an instance is inactive too, but has a job.
			if same, err := r.still(ctx, u); err != nil || !same {
				continue
			}
			return fmt.Errorf("%s was stopped during the rollout", unit)
		case u.ActiveState == "failed" && u.JobType == "":
			// Not even a process of it was started: its socket could not be opened, or its start
			// limit was hit.
			if same, err := r.still(ctx, u); err != nil || !same {
				continue
			}
			return r.failure(ctx, u, "could not be started")
		}
		if err := r.news(ctx, unit, before); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				ctx := context.WithoutCancel(ctx)
				if now, err := r.manager.Unit(ctx, unit); err == nil {
					u = now
				}
				return r.failure(ctx, u, "did not get ready within "+r.options.Limit.String())
			}
			return err
		}
	}
}

// renewed says that an instance is up in another invocation than before.
func renewed(u systemd.UnitState, before string) bool {
	return u.InvocationID != before && u.ActiveState == "active"
}

// underWay says that an instance is still in the invocation before, or starts.
func underWay(u systemd.UnitState, before string) bool {
	return u.InvocationID == before && (u.Up() || u.Leaving()) || u.ActiveState == "activating" && !u.AwaitsRestart()
}

// soak waits for the soak time and fails as soon as an instance on the new code ends.
func (r *Rollout) soak(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, r.options.Soak)
	defer cancel()
	for {
		if err := r.freshUp(ctx); err != nil {
			return err
		}
		if _, err := r.next(limit); err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				return nil
			}
			return err
		}
	}
}

// freshUp fails if an instance on the new code is no longer up in the invocation that was ready. It
// has crashed, perhaps while others were restarted, and so the release is bad.
func (r *Rollout) freshUp(ctx context.Context) error {
	for number, invocation := range r.fresh {
		unit := r.options.App.Instance(number)
		u, err := r.manager.Active(ctx, unit)
		if err == nil && (u.InvocationID != invocation || !u.Up()) {
			u, err = r.manager.Unit(ctx, unit) // all of it, to say what became of it
		}
		if err != nil {
			return err
		}
		if u.InvocationID != invocation {
			u.InvocationID = invocation // whose last words count
			return r.failure(ctx, u, "was ready and then ended, and was started again")
		}
		if !u.Up() {
			return r.failure(ctx, u, "was ready and then ended")
		}
	}
	return nil
}

// failure is an instance that did not do what the rollout needs.
type failure struct {
	what   string // app@2.service did not get ready
	public string // how it ended, in words that every user may read
	reason explain.Reason
}

// Error is for the journal and for whoever asked for the rollout.
func (f *failure) Error() string {
	if f.reason.What == "" {
		return f.what + ": " + f.public
	}
	text := f.what + ": " + f.reason.String()
	if f.reason.Hint != "" {
		text += "; hint: " + f.reason.Hint
	}
	return text
}

// status is the text for the status line, which every user may read, without output of the program.
func (f *failure) status() string { return f.what + ": " + f.public }

// failure says what became of an instance and why, as far as that can be told.
func (r *Rollout) failure(ctx context.Context, u systemd.UnitState, what string) error {
	f := &failure{what: u.Name + " " + what, public: explain.State(u)}
	if f.public == "" {
		f.public = "it is " + u.ActiveState + " (" + u.SubState + ")"
	}
	unit, _ := r.options.App.ParseUnit(u.Name)
	var err error
	f.reason, err = explain.Question{Conn: r.manager, App: r.options.App, UserUnits: r.options.UserUnits, RuntimeDir: r.options.RuntimeDir,
		Since: r.began}.Instance(ctx, unit.Instance)
	if err != nil {
		r.log.Warn("find out why an instance is not ready, ignoring", "instance", unit.Instance, "error", err)
	}
	return f
}

// news waits for an event of unit after which it may be up, or may never be. Those on the way there
// are left out, as each look asks PID 1.
func (r *Rollout) news(ctx context.Context, unit, before string) error {
	for {
		u, err := r.next(ctx)
		if err != nil {
			return err
		}
		if u.Name == unit && !underWay(u, before) {
			return nil
		}
	}
}

// next waits for one event of a watched unit.
func (r *Rollout) next(ctx context.Context) (systemd.UnitState, error) {
	select {
	case u, ok := <-r.units.Events():
		if !ok {
			return u, errors.New("follow units: watcher was closed")
		}
		return u, nil
	case <-ctx.Done():
		return systemd.UnitState{}, ctx.Err()
	}
}

// still reports whether a second read of a unit returns the same state. PID 1 answers property by
// property, so a state that is read during a change may be consistent with neither the old nor the
// new state, and must not be judged.
func (r *Rollout) still(ctx context.Context, u systemd.UnitState) (bool, error) {
	now, err := r.manager.Unit(ctx, u.Name)
	return now == u, err
}

// disposable leaves out the extra instances that are enabled by now: whoever did that was told that
// they run, and they are the app's from then on.
func (r *Rollout) disposable(ctx context.Context, extra []int) ([]int, error) {
	var left []int
	for _, number := range extra {
		enabled, err := r.options.Enabled(ctx, number)
		if err != nil {
			return nil, err
		}
		if enabled {
			r.log.Info("extra instance is enabled by now and stays", "instance", number)
			continue
		}
		left = append(left, number)
	}
	return left, nil
}

// removeExtra drains and stops extra instances and their sockets, and forgets them. An instance
// that was enabled during its stop is started again.
func (r *Rollout) removeExtra(ctx context.Context, extra []int) error {
	if len(extra) == 0 {
		return nil
	}
	gone, err := r.disposable(ctx, extra)
	if err != nil {
		return fmt.Errorf("remove extra instances: %w", err)
	}
	for _, number := range gone {
		r.units.Forget(r.options.App.Instance(number)) // nobody follows them any more
	}
	for _, jobs := range stopJobs(r.options.App, gone) {
		if err := r.manager.Run(ctx, jobs...); err != nil {
			return fmt.Errorf("remove extra instances: %w", err)
		}
	}
	for _, number := range gone {
		delete(r.fresh, number)
		// Many programs end with a status other than 0 on SIGTERM; a removed instance must not stay
		// visible as failed.
		if err := r.forgive(ctx, number); err != nil {
			return fmt.Errorf("remove extra instances: %w", err)
		}
		if enabled, err := r.options.Enabled(ctx, number); err != nil || enabled {
			start := systemd.Job{Verb: systemd.Start, Unit: r.options.App.Instance(number)}
			err = errors.Join(err, r.manager.Enqueue(ctx, start))
			if err != nil {
				return fmt.Errorf("keep instance that was enabled meanwhile: %w", err)
			}
		}
	}
	return r.remember(nil)
}
