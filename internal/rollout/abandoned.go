package rollout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/rollout/tally"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Abandoned lists the extra instances of a rollout that was cut off, without those that are enabled
// by now.
func Abandoned(ctx context.Context, c *systemd.Conn, name app.Name, runtimeDir string) ([]int, error) {
	var left []int
	for _, number := range leftover(runtimeDir) {
		enabled, err := Enabled(ctx, c, name, number)
		if err != nil {
			return nil, err
		}
		if !enabled {
			left = append(left, number)
		}
	}
	return left, nil
}

// abandonedWait is how long to wait for the stop of extra instances: PID 1 merges a reload of a
// service whose ExecStartPost= is running into its start. The next rollout handles instances that
// take longer.
const abandonedWait = 3 * time.Second

// RemoveAbandoned has PID 1 stop what Abandoned has listed, and counts the rollout that was cut
// off. It leaves both to a rollout that is under way.
func RemoveAbandoned(ctx context.Context, c *systemd.Conn, name app.Name, runtimeDir string, extra []int, log *slog.Logger) error {
	if last, err := tally.Read(runtimeDir); len(extra) == 0 && (err != nil || last.Running == 0) {
		return nil
	}
	r := New(Options{App: name, RuntimeDir: runtimeDir}, c, nil, nil, log)
	held, err := r.lock()
	if err != nil {
		return nil // the rollout that holds the lock removes them
	}
	defer held.Close()
	r.counted(tally.Settle(runtimeDir))
	if len(extra) == 0 {
		return nil
	}
	log.Info("extra instances of an interrupted rollout are removed", "instances", fmt.Sprint(extra))
	if err := r.abandon(ctx, extra); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, abandonedWait)
	defer cancel()
	for _, jobs := range stopJobs(name, extra) {
		if err := c.Run(ctx, jobs...); err != nil {
			return nil // PID 1 stops them, and the note of them stays
		}
	}
	for _, number := range extra {
		if err := errors.Join(c.ResetFailed(ctx, name.Instance(number)), c.ResetFailed(ctx, name.InstanceSocket(number))); err != nil {
			return err
		}
	}
	return r.remember(nil)
}

// stopJobs are the jobs that end instances, in two steps: programs, then listeners.
func stopJobs(name app.Name, numbers []int) [2][]systemd.Job {
	var steps [2][]systemd.Job
	for _, number := range numbers {
		steps[0] = append(steps[0], systemd.Job{Verb: systemd.Stop, Unit: name.Instance(number)})
		steps[1] = append(steps[1], systemd.Job{Verb: systemd.Stop, Unit: name.InstanceSocket(number)})
	}
	return steps
}

// abandonExtra queues the stop of extra instances without waiting: whoever cancelled the rollout
// waits for it to end.
func (r *Rollout) abandonExtra(ctx context.Context, extra []int) error {
	gone, err := r.disposable(ctx, extra)
	return errors.Join(err, r.abandon(ctx, gone))
}

func (r *Rollout) abandon(ctx context.Context, extra []int) error {
	var errs []error
	for _, jobs := range stopJobs(r.options.App, extra) {
		for _, job := range jobs {
			errs = append(errs, r.manager.Enqueue(ctx, job))
		}
	}
	return errors.Join(errs...)
}
