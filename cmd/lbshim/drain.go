package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/process"
	"github.com/unitgen/unitgen/internal/systemd"
)

// settleTime is how long a connection that was opened just before the drain has to ask, at programs
// that close those that have not asked yet: two round trips of a handshake to a far client.
const settleTime = time.Second

// hangLimit is WatchdogSec= of the shim: PID 1 replaces a hung shim in that time.
const hangLimit = 30 * time.Second

// drain waits until the shim reports that the instance may stop, the program has ended, or the time
// is up. If the shim has died while the app is being stopped, no shim will answer, and drain counts
// by itself. TimeoutStopSec= of the instance bounds it.
func drain(ctx context.Context, e *command.Env, o command.Options) error {
	if e.Getenv("EXIT_CODE") != "" {
		return nil // the program has ended by itself, and with success: PID 1 runs ExecStop= then too
	}
	p, err := drainParameters(ctx, e, o)
	if err != nil {
		return err
	}
	// Connections that wait at a program that has ended move to other instances when PID 1 reports
	// this one dead, which it does not do before this command ends.
	if pid, err := strconv.Atoi(e.Getenv("MAINPID")); err == nil {
		program, stop := process.Context(ctx, pid)
		defer stop()
		ctx = program
		noteStop(ctx, e, o)
	}
	began := time.Now()
	err = control.Retry(ctx, func() error {
		balancer := lifecycle.Running(o.App)
		if balancer == 0 {
			shim, err := command.BalancerState(ctx, e, o)
			if err != nil {
				return err
			}
			if !lifecycle.Answers(shim) {
				return drainAlone(ctx, e, o, p, began)
			}
			balancer = shim.MainPID
		}
		err := drainBy(ctx, e, o, p, balancer)
		if errors.Is(err, control.ErrNoAnswer) && time.Since(began) > hangLimit {
			return errors.New("the balancer hangs") // the end of retries
		}
		return err
	})
	if err != nil && !errors.Is(context.Cause(ctx), process.ErrEnded) {
		return fmt.Errorf("drain instance %d: %w", o.Instance, err)
	}
	return nil
}

// noteStop tells ExecStopPost= that PID 1 ends this invocation, unless its main process, which ctx
// follows, has ended. PID 1 does not see how a process ends that it has not started (MAINPID= of
// sd_notify(3)), and runs ExecStop= then as in a stop.
func noteStop(ctx context.Context, e *command.Env, o command.Options) {
	if ctx.Err() != nil {
		return
	}
	if err := lifecycle.NoteStop(filepath.Dir(o.ControlPath(e)), o.Instance, e.Getenv("INVOCATION_ID")); err != nil {
		e.Log.Warn("note that the instance stops, ignoring", "instance", o.Instance, "error", err)
	}
}

// drainParameters finds out what the program does on its stop signal, unless --shutdown= says it.
func drainParameters(ctx context.Context, e *command.Env, o command.Options) (control.DrainParameters, error) {
	p := control.DrainParameters{Instance: o.Instance, Settle: settleTime}
	switch app.Shutdown(o.Shutdown) {
	case app.ShutdownGraceful:
		p.Graceful = true
	case app.ShutdownQuick:
		return p, nil
	case "":
	default:
		return p, command.UsageError("--shutdown= must be graceful or quick, got %q", o.Shutdown)
	}
	serves, err := runsServe(ctx, e, o)
	if err != nil {
		e.Log.Warn("find out whether the program shuts down gracefully, ignoring", "instance", o.Instance, "error", err)
	}
	if serves {
		p.Graceful, p.Settle = true, 0
	}
	return p, nil
}

// drainBy is drainOnce that fails as soon as the shim has died. PID 1 holds the control socket,
// which still accepts connections that no process serves.
func drainBy(ctx context.Context, e *command.Env, o command.Options, p control.DrainParameters, pid int) error {
	if pid != 0 {
		var cancel context.CancelFunc
		ctx, cancel = process.Context(ctx, pid)
		defer cancel()
	}
	err := drainOnce(ctx, e, o, p)
	if err != nil && errors.Is(context.Cause(ctx), process.ErrEnded) {
		return fmt.Errorf("the balancer has died: %w", io.ErrUnexpectedEOF) // which control.Retry knows
	}
	return err
}

func drainOnce(ctx context.Context, e *command.Env, o command.Options, p control.DrainParameters) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(control.AnswerTimeout, func() { cancel(control.ErrNoAnswer) })
	defer silent.Stop()
	return control.Stream(ctx, o.ControlPath(e), control.MethodDrain, p, func(json.RawMessage) error {
		silent.Stop()
		return nil
	})
}

// runsServe reports whether the instance is a program in Go that handles its stop signal with
// activation.StopSignal and runs activation.Serve, which shuts down gracefully and gives new
// connections time to send a request.
func runsServe(ctx context.Context, e *command.Env, o command.Options) (bool, error) {
	pid := e.Getenv("MAINPID")
	if pid == "" || !holdsMark(pid) {
		return false, nil // it has ended, or is another program, for which PID 1 need not be asked
	}
	number := 0
	err := systemd.Ask(ctx, o.Endpoint(e), func(c *systemd.Conn) (err error) {
		number, err = c.KillSignal(ctx, o.App.Instance(o.Instance))
		return err
	})
	return err == nil && (number == int(unix.SIGTERM) || number == int(unix.SIGINT)), err
}

// serveMark is how /proc shows the mark of activation.Serve. Another program that makes one ends
// its own drains early.
const serveMark = "/memfd:unitgen.activation.Serve (deleted)"

// mostDescriptors bounds the look. Serve makes its mark before it accepts, among the first
// descriptors of the process, while the program may have a million. The kernel lists them by
// number.
const mostDescriptors = 1024

// holdsMark looks for the mark among the descriptors of a process; it reads nothing else of the
// process.
func holdsMark(pid string) bool {
	dir, err := os.Open("/proc/" + pid + "/fd")
	if err != nil {
		return false
	}
	defer dir.Close()
	open, _ := dir.Readdirnames(mostDescriptors) // those up to an error count
	for _, fd := range open {
		if target, err := os.Readlink(dir.Name() + "/" + fd); err == nil && target == serveMark {
			return true
		}
	}
	return false
}
