// Package rollout puts new code live, one instance after another, and loses no request. It is
// ExecReload= of app.service, so `systemctl reload app` returns when the rollout ends, and fails if
// an instance did not get ready.
//
// First an extra instance starts on the new code (surge). If it does not get ready and stay up, it
// is removed, and no other instance was touched. Then the instances are restarted, each drained by
// its ExecStop= before its program ends. At last the extra instance is drained and stopped.
// Capacity never drops below its earlier value.
//
// The extra instance has the next free number, and is not enabled, so that it does not start at
// boot. A file of the app's runtime directory has its number: the next rollout removes the extra
// instances of a killed one.
//
// The package does not decide where connections go; the shim follows the states of the instances.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/rollout/tally"
	"github.com/unitgen/unitgen/internal/systemd"
)

// SurgeAll is the Options.Surge that starts as many extra instances as there are.
const SurgeAll = -1

// DefaultSoak is how long an instance on new code must stay up before the others follow. Most
// releases that are broken end at once; PM2 waits as long for an instance to listen.
const DefaultSoak = 3 * time.Second

// ErrNoBalancer is the cause to cancel Run's context with when the balancer has ended. PID 1 starts
// the next one only when the reload is over, and without one no instance can join or drain: so also
// the extra ones are left as they are, for Resume to remove.
var ErrNoBalancer = errors.New("the balancer has ended in the middle of the rollout; reload again to go on")

// Options are the settings of a rollout.
type Options struct {
	App        app.Name
	Surge      int           // extra instances, at least Parallel unless it is 0; SurgeAll for as many as there are
	Parallel   int           // instances restarted at a time; zero means 1
	Soak       time.Duration // how long the extra instances must stay up; zero means DefaultSoak
	Limit      time.Duration // for one instance, from the start of its drain until it is ready
	UserUnits  bool          // the manager is a user's own
	RuntimeDir string        // of the app, below which the numbers of extra instances are noted

	// Steered returns when the balancer gives connections to an instance, which is a moment after
	// PID 1 calls it active.
	Steered func(ctx context.Context, number int) error

	// Enabled reports whether the admin has enabled an instance. Nil asks PID 1.
	Enabled func(ctx context.Context, number int) (bool, error)
}

// Rollout is one run. Make one per reload.
type Rollout struct {
	options Options
	manager *systemd.Conn // for questions and jobs
	units   *systemd.Watcher
	note    func(text string) // shown by systemctl status; "" takes it back
	log     *slog.Logger
	began   time.Time

	fresh map[int]string // instances on the new code, with the invocation that proved itself
}

// Properties are what the watcher of a rollout must report of units (systemd.WatcherOptions).
func Properties() []string { return []string{"InvocationID"} }

// New prepares a rollout. The caller keeps ownership of manager, which is one that stays
// (systemd.DialToStay), and of units, which the rollout alone may use until it has ended. note is
// called with each step.
func New(o Options, manager *systemd.Conn, units *systemd.Watcher, note func(string), log *slog.Logger) *Rollout {
	if o.Parallel == 0 {
		o.Parallel = 1
	}
	if o.Soak == 0 {
		o.Soak = DefaultSoak
	}
	if o.Surge > 0 {
		o.Surge = max(o.Surge, o.Parallel) // or as many as are down at a time would be missing
	}
	r := &Rollout{
		options: o, manager: manager, units: units, note: note, log: log,
		fresh: make(map[int]string),
	}
	if o.Enabled == nil {
		r.options.Enabled = r.enabled
	}
	return r
}

// Run does the rollout. It returns nil when every instance that ran is up on the new code. On an
// error the remaining instances still run the old code, and no extra instance is left, except after
// ErrNoBalancer. The end of ctx is such an error.
func (r *Rollout) Run(ctx context.Context) (err error) {
	r.began = time.Now()
	lock, err := r.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	r.counted(tally.Begin(r.options.RuntimeDir, r.began))
	defer func() { r.count(ctx, err) }()
	leftover := r.leftover()
	for _, number := range leftover {
		r.log.Info("extra instance of an interrupted rollout is removed", "instance", number)
	}
	if err := r.removeExtra(ctx, leftover); err != nil {
		return err
	}
	numbers, err := r.running(ctx)
	if err != nil {
		return err
	}
	err = r.roll(ctx, numbers)
	if err != nil {
		r.note("rollout failed: " + status(err))
		return err
	}
	r.note("")
	r.log.Info("rollout is complete", "instances", len(numbers))
	return nil
}

// count adds this rollout, which ends with err, to the tally.
func (r *Rollout) count(ctx context.Context, err error) {
	result := tally.Failure
	switch {
	case err == nil:
		result = tally.Success
	case ctx.Err() != nil:
		result = tally.Cancelled
	}
	now := time.Now()
	r.counted(tally.End(r.options.RuntimeDir, result, now.Sub(r.began), now))
}

// counted logs that the tally could not be written, which costs a line of the metrics and no
// instance.
func (r *Rollout) counted(err error) {
	if err != nil {
		r.log.Warn("count rollout, ignoring", "error", err)
	}
}

// status returns an error as text that every user may read.
func status(err error) string {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.status() + "; the reason is in the journal"
	}
	return err.Error()
}

func (r *Rollout) roll(ctx context.Context, numbers []int) (err error) {
	extra, err := r.extra(ctx, numbers)
	if err != nil {
		return err
	}
	defer func() { err = r.clean(ctx, extra, err) }()
	if err := r.prove(ctx, extra); err != nil {
		return err
	}
	done := 0
	for chunk := range slices.Chunk(numbers, r.options.Parallel) {
		r.note(fmt.Sprintf("rollout %d/%d", done, len(numbers)))
		if err := r.renew(ctx, chunk); err != nil {
			return err
		}
		done += len(chunk)
	}
	return r.freshUp(ctx)
}

// clean removes the extra instances, also when ctx has ended. Without a balancer it leaves them:
// what drains would wait for the next one, and that for the end of the rollout.
func (r *Rollout) clean(ctx context.Context, extra []int, err error) error {
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.options.Limit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		if noBalancer(ctx) {
			cancel()
		}
	})
	defer stop()
	switch {
	case noBalancer(ctx):
	case ctx.Err() != nil && r.stops(clean):
	case ctx.Err() != nil:
		err = errors.Join(err, r.abandonExtra(clean, extra))
	default:
		err = errors.Join(err, r.removeExtra(clean, extra))
	}
	if noBalancer(ctx) {
		return ErrNoBalancer
	}
	return err
}

// stops reports whether the app, and the rollout with it, is being stopped or restarted: then the
// extra instances are stopped with the app, or removed by the next balancer.
func (r *Rollout) stops(ctx context.Context) bool {
	u, err := r.manager.Unit(ctx, r.options.App.Service())
	return err == nil && u.Leaving()
}

func noBalancer(ctx context.Context) bool { return errors.Is(context.Cause(ctx), ErrNoBalancer) }

// prove starts the extra instances and waits until they have stayed up for the soak time.
func (r *Rollout) prove(ctx context.Context, extra []int) error {
	if len(extra) == 0 {
		return nil
	}
	r.note("rollout: trying the new code")
	if err := r.remember(extra); err != nil {
		return err
	}
	if err := r.change(ctx, systemd.Start, extra); err != nil {
		return fmt.Errorf("try the new code: %w", err)
	}
	if err := r.soak(ctx); err != nil {
		return fmt.Errorf("try the new code: %w", err)
	}
	return nil
}

// renew restarts some instances and waits until they are ready. Instances that were stopped since
// the rollout began stay stopped.
func (r *Rollout) renew(ctx context.Context, numbers []int) error {
	began := time.Now()
	running, err := r.running(ctx, numbers...)
	if err != nil {
		return err
	}
	numbers = slices.DeleteFunc(slices.Clone(numbers), func(n int) bool { return !slices.Contains(running, n) })
	if err := r.change(ctx, systemd.Restart, numbers); err != nil {
		return err
	}
	for _, number := range numbers {
		r.log.Info("instance runs the new code", "instance", number, "after", time.Since(began).Round(time.Millisecond).String())
	}
	return nil
}

// running lists the instances of a rollout, or those among numbers: all that run or are to be
// restarted. An instance that an admin has stopped stays stopped.
func (r *Rollout) running(ctx context.Context, among ...int) ([]int, error) {
	all, err := r.manager.Instances(ctx, r.options.App, among...)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, in := range all {
		if in.ActiveState != "inactive" || in.JobType == "start" || in.JobType == "restart" {
			numbers = append(numbers, in.Number)
		}
	}
	return numbers, nil
}

// extra picks the numbers of the extra instances: those after the highest, as many as there is room
// for. It skips enabled numbers: those instances belong to the admin, who has stopped them.
func (r *Rollout) extra(ctx context.Context, numbers []int) ([]int, error) {
	if len(numbers) == 0 {
		return nil, nil
	}
	want := r.options.Surge
	if want == SurgeAll {
		want = len(numbers)
	}
	var extra []int
	for next := numbers[len(numbers)-1] + 1; len(extra) < want && next <= app.MaxInstances; next++ {
		enabled, err := r.options.Enabled(ctx, next)
		if err != nil {
			return nil, err
		}
		if !enabled {
			extra = append(extra, next)
		}
	}
	if len(extra) < want {
		r.log.Info("no number is left for an extra instance", "wanted", want, "got", len(extra))
	}
	return extra, nil
}

// enabled reports whether an instance is enabled.
func (r *Rollout) enabled(ctx context.Context, number int) (bool, error) {
	return Enabled(ctx, r.manager, r.options.App, number)
}

// Enabled reports whether an instance is enabled, permanently or until the next boot.
func Enabled(ctx context.Context, c *systemd.Conn, name app.Name, number int) (bool, error) {
	state, err := c.UnitFileState(ctx, name.Instance(number))
	return strings.HasPrefix(state, "enabled"), err
}
