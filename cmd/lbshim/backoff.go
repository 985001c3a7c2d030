package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/systemd"
)

// backOff is ExecStopPost= of an instance. The instance is "deactivating (stop-post)" meanwhile,
// and no connection waits for it.
func backOff(ctx context.Context, e *env, o options) error {
	if err := tellEnd(ctx, e, o); err != nil {
		e.log.Warn("tell the balancer that the program has ended, ignoring", "instance", o.instance, "error", err)
	}
	if tookStop(e, o) {
		return nil // as somebody stops or restarts the instance, there is nothing to delay
	}
	if e.getenv("EXIT_CODE") == "exited" {
		status, err := strconv.Atoi(e.getenv("EXIT_STATUS"))
		if err == nil && slices.Contains(o.exitCodes, status) {
			return nil // no restart follows
		}
	}
	conn, err := systemd.Dial(ctx, o.endpoint(e))
	if err != nil {
		return err
	}
	defer conn.Close()
	unit := o.app.Instance(o.instance)
	state, err := conn.Unit(ctx, unit)
	if err != nil {
		return err
	}
	note := filepath.Join(filepath.Dir(o.controlPath(e)), "forgiven-restarts-"+strconv.Itoa(o.instance))
	wait, forgiven := lifecycle.BackOff(state, o.restartDelay, readNumber(note), time.Now())
	if err := writeNumber(note, forgiven); err != nil {
		e.log.Warn("note that restarts are forgiven, ignoring", "instance", o.instance, "error", err)
	}
	if wait == 0 {
		return nil
	}
	timed, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	conn.Close() // or PID 1 would send all that happens on the host to each instance that waits
	if conn, err = systemd.DialToStay(timed, o.endpoint(e)); err == nil {
		defer conn.Close()
		err = conn.AwaitStop(timed, unit)
	}
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil || systemd.IsDisconnected(err) {
		return nil // time is up, or what can keep an admin waiting ends: SIGTERM, or a manager that cannot be followed
	}
	return err
}

// tellEndLimit bounds the wait for a shim that hangs.
const tellEndLimit = 5 * time.Second

// tellEnd has the shim put back what the program did to its listener, before PID 1 polls that: PID
// 1 gives up a listener that does not listen.
func tellEnd(ctx context.Context, e *env, o options) error {
	ctx, cancel := context.WithTimeout(ctx, tellEndLimit)
	defer cancel()
	answers, err := shimAnswers(ctx, e, o)
	if err != nil || !answers {
		return err
	}
	return control.Call(ctx, o.controlPath(e), control.MethodEnded, control.Instance{Instance: o.instance}, nil)
}

// stopNote is where ExecStop= tells ExecStopPost= that PID 1 stops this run of the instance.
func stopNote(e *env, o options) string {
	return filepath.Join(filepath.Dir(o.controlPath(e)), "stops-"+strconv.Itoa(o.instance))
}

// noteStop is for a command that PID 1 runs only when it stops a program that has not ended by
// itself.
func noteStop(e *env, o options) error {
	return os.WriteFile(stopNote(e, o), []byte(e.getenv("INVOCATION_ID")), 0o600)
}

// tookStop reports whether this run has ended because PID 1 was asked to stop it, and forgets that.
// A run that took too long is one that PID 1 stops without being asked (RuntimeMaxSec=).
func tookStop(e *env, o options) bool {
	run, err := os.ReadFile(stopNote(e, o))
	if err != nil {
		return false // it has ended by itself
	}
	os.Remove(stopNote(e, o))
	return string(run) == e.getenv("INVOCATION_ID") && len(run) > 0 && e.getenv("SERVICE_RESULT") == "success"
}

// readNumber is 0 for a file that is not there or holds none.
func readNumber(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(string(text))
	if err != nil {
		return 0
	}
	return n
}

// writeNumber removes the file for 0.
func writeNumber(file string, n int) error {
	if n > 0 {
		return os.WriteFile(file, []byte(strconv.Itoa(n)), 0o600)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
