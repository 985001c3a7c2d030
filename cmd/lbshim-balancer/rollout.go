package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/process"
	"github.com/unitgen/unitgen/internal/rollout"
	"github.com/unitgen/unitgen/internal/systemd"
)

// How often PID 1 is asked for more time, and for how much. Its own limit is TimeoutStartSec=,
// which is not made for a rollout of many instances.
const (
	extendEvery = 5 * time.Second
	extendBy    = 30 * time.Second
)

// rolloutMargin is what one instance may take beyond its longest stop and its start time-out.
const rolloutMargin = 20 * time.Second

// roll is ExecReload= of the shim's unit.
func roll(ctx context.Context, e *command.Env, o command.Options) error {
	surge, err := parseSurge(o.Surge)
	if err != nil {
		return err
	}
	shimPID, err := strconv.Atoi(e.Getenv("MAINPID"))
	if err != nil {
		return rollout.ErrNoBalancer // PID 1 tells each process of a reload whom it reloads, unless that has just ended
	}
	notify, err := activation.NewNotifier()
	if err != nil {
		return err
	}
	defer notify.Close()
	// alive ends with the shim, and ctx also when the rollout is stopped. PID 1 starts the next
	// shim only after the reload, so waiting for that shim here would be in vain.
	alive, died := context.WithCancelCause(context.WithoutCancel(ctx))
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(alive, func() { cancel(context.Cause(alive)) })
	unguard := guard(alive, died, shimPID)
	extended := make(chan struct{})
	go extend(ctx, e, notify, extended)
	defer func() { stop(); unguard(); cancel(nil); died(nil); <-extended }()
	if err := reconfigure(ctx, e, o); err != nil {
		if errors.Is(context.Cause(alive), rollout.ErrNoBalancer) {
			return rollout.ErrNoBalancer
		}
		if ctx.Err() != nil {
			return errors.Join(err, stopInstead(alive, e, o))
		}
		err = fmt.Errorf("take over settings: %w", err)
		return errors.Join(err, tell(alive, e, o, "reload refused: "+err.Error()))
	}
	defer follow(alive, e, o)()
	manager, err := systemd.DialToStay(alive, o.Endpoint(e))
	if err != nil {
		return err
	}
	defer manager.Close()
	units := systemd.NewWatcher(systemd.WatcherOptions{Endpoint: o.Endpoint(e), Properties: rollout.Properties()})
	defer units.Close()
	note := func(text string) {
		err := tell(alive, e, o, text)
		// The status line of a shim that has ended has gone with it.
		if err != nil && !errors.Is(context.Cause(alive), rollout.ErrNoBalancer) {
			e.Log.Warn("tell shim of the rollout, ignoring", "error", err)
		}
	}
	err = rollout.New(rollout.Options{
		App: o.App, Surge: surge, Parallel: o.Parallel, Soak: o.Soak,
		Limit:      app.App{DrainTimeout: o.DrainTimeout}.LongestStop() + o.StartTimeout + rolloutMargin,
		UserUnits:  o.UserUnits,
		RuntimeDir: filepath.Dir(o.ControlPath(e)),
		Steered:    func(ctx context.Context, number int) error { return awaitSteered(ctx, e, o, number) },
	}, manager, units, note, e.Log).Run(ctx)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(err, stopInstead(alive, e, o))
	}
	return err
}

// follow has the shim notice when this process is killed. The caller calls done when the rollout
// has ended in any other way.
func follow(alive context.Context, e *command.Env, o command.Options) (done func()) {
	self := control.Rollout{PID: os.Getpid()}
	ctx, cancel := context.WithTimeout(alive, control.AnswerTimeout)
	defer cancel()
	held, err := control.Hold(ctx, o.ControlPath(e), control.MethodRolling, self)
	if err != nil {
		// A shim of an older version does not know the method.
		e.Log.Warn("have the balancer follow the rollout, ignoring", "error", err)
		return func() {}
	}
	return func() {
		defer held.Close()
		_ = control.Call(alive, o.ControlPath(e), control.MethodRolled, self, nil) // it fails when the shim has died, which then has nothing to notice
	}
}

// guard ends alive when the shim does. The caller calls stop.
func guard(alive context.Context, died context.CancelCauseFunc, shim int) (stop func()) {
	watched, end := process.Context(alive, shim)
	unregister := context.AfterFunc(watched, func() {
		if errors.Is(context.Cause(watched), process.ErrEnded) {
			died(rollout.ErrNoBalancer)
		}
	})
	return func() { unregister(); end() }
}

// awaitSteered returns when the shim gives connections to an instance. It waits for a restarting
// shim until ctx ends.
func awaitSteered(ctx context.Context, e *command.Env, o command.Options, number int) error {
	return control.Retry(ctx, func() error {
		return control.Wait(ctx, o.ControlPath(e), control.MethodSteered, control.Instance{Instance: number}, nil)
	})
}

// extend keeps PID 1 from cutting the reload off while it makes progress; every step has its own
// limit.
func extend(ctx context.Context, e *command.Env, notify *activation.Notifier, done chan<- struct{}) {
	defer close(done)
	tick := time.NewTicker(extendEvery)
	defer tick.Stop()
	for {
		if err := notify.ExtendTimeout(extendBy); err != nil {
			e.Log.Warn("extend time-out of the reload, ignoring", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func parseSurge(s string) (int, error) {
	if s == "all" {
		return rollout.SurgeAll, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > app.MaxInstances {
		return 0, command.UsageError("--surge= must be a number from 0 to %d or all, got %q", app.MaxInstances, s)
	}
	return n, nil
}

// reconfigure sends the shim the present options of its ExecStart=, drop-ins included.
func reconfigure(ctx context.Context, e *command.Env, o command.Options) error {
	var now command.Options
	err := systemd.Ask(ctx, o.Endpoint(e), func(c *systemd.Conn) (err error) {
		now, err = command.ServeOptions(ctx, c, o.App)
		return err
	})
	if err != nil {
		return err
	}
	return control.Call(ctx, o.ControlPath(e), control.MethodConfigure, now.Settings(), nil)
}

// tell sends the shim a line for systemctl status.
func tell(ctx context.Context, e *command.Env, o command.Options, text string) error {
	err := control.Call(ctx, o.ControlPath(e), control.MethodNote, control.Note{Text: text}, nil)
	if _, ok := errors.AsType[*control.Error](err); ok {
		return fmt.Errorf("shim refused: %w", err)
	}
	return err
}
