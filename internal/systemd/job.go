package systemd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

// Verb is what a job does to its unit.
type Verb string

// The verbs, named as the manager's methods.
const (
	Start   Verb = "StartUnit"
	Stop    Verb = "StopUnit"
	Restart Verb = "RestartUnit"
	Reload  Verb = "ReloadUnit"
)

// Word is the verb as systemctl spells it.
func (v Verb) Word() string { return strings.ToLower(strings.TrimSuffix(string(v), "Unit")) }

// Mode says what happens to jobs that are queued already and stand in the way.
type Mode string

// Replace cancels them; Fail fails the new job instead, so that it never reverses what the admin
// asked for.
const (
	Replace Mode = "replace"
	Fail    Mode = "fail"
)

// Job is a request to the manager. Mode zero means Replace.
type Job struct {
	Verb Verb
	Unit string
	Mode Mode
}

// JobError says that a job was queued and ended without success.
type JobError struct {
	Job    Job
	Result string // failed, timeout, dependency, canceled, ...: JobRemoved in org.freedesktop.systemd1(5)
}

func (e *JobError) Error() string {
	return fmt.Sprintf("%s %s: job ended with result %q", e.Job.Verb.Word(), e.Job.Unit, e.Result)
}

// Run queues the jobs in order, waits until all have ended and returns the failures of all, joined:
// *JobError for a job that ran, the manager's error for a job that could not be queued. Run tries
// the other jobs all the same. When ctx ends, Run stops waiting and the jobs continue.
//
// The jobs are separate transactions: the manager runs them side by side as far as the units'
// ordering permits.
func (c *Conn) Run(ctx context.Context, jobs ...Job) error {
	r := jobRun{todo: jobs, waiting: make(map[dbus.ObjectPath]Job, len(jobs))}
	err := c.use(ctx, func(l *link) error { return r.follow(ctx, l) })
	return errors.Join(append(r.failed, err)...)
}

// jobRun is jobs under way, over as many connections as they last.
type jobRun struct {
	todo    []Job
	waiting map[dbus.ObjectPath]Job // queued. Two requests that were merged into one job share its path, and end with it
	lost    map[string]bool         // units whose job ended when nobody could tell how
	failed  []error
}

// follow returns when all jobs have ended, or with the error of the connection.
func (r *jobRun) follow(ctx context.Context, l *link) error {
	rule := []dbus.MatchOption{
		dbus.WithMatchSender(busName), dbus.WithMatchObjectPath(managerPath),
		dbus.WithMatchInterface(managerIf), dbus.WithMatchMember("JobRemoved"),
	}
	// Listening starts before the first job is queued: a short job has ended before its number is
	// known here.
	ended := l.signals()
	defer l.bus.RemoveSignal(ended)
	if err := l.addMatch(ctx, rule...); err != nil {
		return fmt.Errorf("follow jobs: %w", err)
	}
	defer l.removeMatch(context.WithoutCancel(ctx), rule...)
	if len(r.waiting) > 0 {
		if err := r.review(ctx, l); err != nil {
			return err
		}
	}
	for ; len(r.todo) > 0; r.todo = r.todo[1:] {
		job := r.todo[0]
		path, err := l.enqueue(ctx, job)
		switch {
		case IsDisconnected(err):
			return err
		case err == nil:
			r.waiting[path] = job
		case !r.lost[job.Unit] || !IsNoSuchUnit(err): // else it has stopped, and been forgotten
			r.failed = append(r.failed, err)
		}
	}
	return r.await(ctx, l, ended)
}

// review goes on with jobs that were queued on an earlier connection. It looks for those that ended
// while there was none. What a start, a restart or a stop came to is asked by a job that has
// nothing to do if it succeeded.
func (r *jobRun) review(ctx context.Context, l *link) error {
	if err := l.subscribe(ctx); err != nil { // the manager knows that somebody else queued them
		return err
	}
	for path, job := range r.waiting {
		_, err := l.property(ctx, path, jobIf, "JobType")
		if err == nil {
			continue
		}
		if !isDBusError(err, "org.freedesktop.DBus.Error.UnknownObject") {
			return fmt.Errorf("follow jobs: %w", err)
		}
		if job.Verb == Reload {
			if err := r.reloaded(ctx, l, job); err != nil {
				return err
			}
		} else {
			r.askAgain(job)
		}
		delete(r.waiting, path)
	}
	return nil
}

// askAgain asks what a job came to. What somebody has asked for since holds.
func (r *jobRun) askAgain(job Job) {
	if job.Verb == Restart {
		job.Verb = Start
	}
	job.Mode = Fail
	r.todo = append(r.todo, job)
	if r.lost == nil {
		r.lost = make(map[string]bool)
	}
	r.lost[job.Unit] = true
}

// reloaded finds out how a reload ended, which must not be repeated for that.
func (r *jobRun) reloaded(ctx context.Context, l *link, job Job) error {
	v, err := l.property(ctx, UnitPath(job.Unit), typeInterface(job.Unit), "ReloadResult")
	if err != nil {
		return fmt.Errorf("read how the reload of %s ended: %w", job.Unit, err)
	}
	if v.Value() != "success" {
		r.failed = append(r.failed, &JobError{Job: job, Result: "failed"})
	}
	return nil
}

// Enqueue queues the job and returns without waiting for it.
func (c *Conn) Enqueue(ctx context.Context, job Job) error {
	return c.use(ctx, func(l *link) error {
		_, err := l.enqueue(ctx, job)
		return err
	})
}

func (l *link) enqueue(ctx context.Context, job Job) (dbus.ObjectPath, error) {
	if job.Mode == "" {
		job.Mode = Replace
	}
	var path dbus.ObjectPath
	if err := l.call(ctx, string(job.Verb), []any{job.Unit, string(job.Mode)}, &path); err != nil {
		return "", fmt.Errorf("%s %s: %w", job.Verb.Word(), job.Unit, err)
	}
	return path, nil
}

// await reads ended until every job of waiting was named there.
func (r *jobRun) await(ctx context.Context, l *link, ended <-chan *dbus.Signal) error {
	for len(r.waiting) > 0 {
		select {
		case sig, ok := <-ended:
			if !ok {
				return errConnectionLost
			}
			var removed jobRemoved
			if sig.Name != managerIf+".JobRemoved" || dbus.Store(sig.Body, &removed.ID, &removed.Path, &removed.Unit, &removed.Result) != nil {
				continue
			}
			job, ours := r.waiting[removed.Path]
			if !ours {
				continue
			}
			delete(r.waiting, removed.Path)
			// As in systemctl, a job that had nothing to do has not failed.
			if removed.Result != "done" && removed.Result != "skipped" {
				r.failed = append(r.failed, &JobError{Job: job, Result: removed.Result})
			}
		case <-l.bus.Context().Done():
			return errConnectionLost
		case <-ctx.Done():
			return fmt.Errorf("wait for jobs: %w", ctx.Err())
		}
	}
	return nil
}

// jobRemoved is the body of signal JobRemoved.
type jobRemoved struct {
	ID     uint32
	Path   dbus.ObjectPath
	Unit   string
	Result string
}
