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
	rule := []dbus.MatchOption{
		dbus.WithMatchSender(busName), dbus.WithMatchObjectPath(managerPath),
		dbus.WithMatchInterface(managerIf), dbus.WithMatchMember("JobRemoved"),
	}
	// Listening starts before the first job is queued: a short job has ended before its number is
	// known here.
	ended := c.signals()
	defer c.bus.RemoveSignal(ended)
	if err := c.addMatch(ctx, rule...); err != nil {
		return fmt.Errorf("follow jobs: %w", err)
	}
	defer c.removeMatch(context.WithoutCancel(ctx), rule...)

	var failed []error
	waiting := make(map[dbus.ObjectPath]Job, len(jobs))
	for _, job := range jobs {
		path, err := c.enqueue(ctx, job)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		waiting[path] = job
	}
	return errors.Join(append(failed, c.await(ctx, waiting, ended))...)
}

// Enqueue queues the job and returns without waiting for it.
func (c *Conn) Enqueue(ctx context.Context, job Job) error {
	_, err := c.enqueue(ctx, job)
	return err
}

func (c *Conn) enqueue(ctx context.Context, job Job) (dbus.ObjectPath, error) {
	if job.Mode == "" {
		job.Mode = Replace
	}
	var path dbus.ObjectPath
	if err := c.call(ctx, string(job.Verb), []any{job.Unit, string(job.Mode)}, &path); err != nil {
		return "", fmt.Errorf("%s %s: %w", job.Verb.Word(), job.Unit, err)
	}
	return path, nil
}

// await reads ended until every job of waiting was named there. Two requests that the manager
// merged into one job share a path; the map then holds one of them, and both ended with it.
func (c *Conn) await(ctx context.Context, waiting map[dbus.ObjectPath]Job, ended <-chan *dbus.Signal) error {
	var failed []error
	for len(waiting) > 0 {
		select {
		case sig, ok := <-ended:
			if !ok {
				return errors.Join(append(failed, errConnectionLost)...)
			}
			var removed jobRemoved
			if sig.Name != managerIf+".JobRemoved" || dbus.Store(sig.Body, &removed.ID, &removed.Path, &removed.Unit, &removed.Result) != nil {
				continue
			}
			job, ours := waiting[removed.Path]
			if !ours {
				continue
			}
			delete(waiting, removed.Path)
			// As in systemctl, a job that had nothing to do has not failed.
			if removed.Result != "done" && removed.Result != "skipped" {
				failed = append(failed, &JobError{Job: job, Result: removed.Result})
			}
		case <-c.bus.Context().Done():
			return errors.Join(append(failed, errConnectionLost)...)
		case <-ctx.Done():
			return errors.Join(append(failed, fmt.Errorf("wait for jobs: %w", ctx.Err()))...)
		}
	}
	return errors.Join(failed...)
}

// jobRemoved is the body of signal JobRemoved.
type jobRemoved struct {
	ID     uint32
	Path   dbus.ObjectPath
	Unit   string
	Result string
}
