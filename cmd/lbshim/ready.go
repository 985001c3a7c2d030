package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/bindnotify"
	"github.com/unitgen/unitgen/internal/cgroup"
	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/process"
	"github.com/unitgen/unitgen/internal/readiness"
)

// ready is ExecStartPost= of an instance that does not send READY=1 to PID 1.
func ready(ctx context.Context, e *command.Env, o command.Options) error {
	check := readiness.Check{Control: o.ControlPath(e), Instance: o.Instance}
	switch how, path, _ := strings.Cut(o.Check, ":"); how {
	case "listen":
	case "node":
		check.Node = true
	case "message":
		check.Message = true
	case "http":
		check.HTTPPath = path
	default:
		return command.UsageError("--check= must be listen, node, message or http:/PATH, got %q", o.Check)
	}
	// The instance may have no network; its listeners are in the network namespace of PID 1.
	runtime.LockOSThread()
	if !o.UserUnits {
		if err := joinNetwork("/proc/1/ns/net"); err != nil {
			return err
		}
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, o.StartTimeout)
	defer cancel()
	pid, err := strconv.Atoi(e.Getenv("MAINPID"))
	if err == nil {
		var stop context.CancelFunc
		ctx, stop = process.Context(ctx, pid)
		defer stop()
	}
	err = control.Retry(ctx, func() error {
		// Connecting to the socket of a shim that is being stopped would make PID 1 start it again.
		there, err := shimAnswers(ctx, e, o)
		switch {
		case errors.Is(context.Cause(ctx), process.ErrEnded):
			return process.ErrEnded
		case err != nil:
			return err
		case !there:
			return errAppStops
		}
		return check.Wait(ctx)
	})
	switch {
	case errors.Is(err, readiness.ErrUnsupported):
		e.Log.Info("readiness is not checked: a single instance cannot be tried with classic BPF", "instance", o.Instance)
		return nil
	case errors.Is(err, errAppStops):
		// This error does not say why the instance is not ready, and must not hide the reason of an
		// earlier run.
		return command.WithStatus(command.ExitFailure, command.ErrSilent)
	case err == nil:
		return explain.Forget(filepath.Dir(o.ControlPath(e)), o.Instance)
	}
	joinNext(e, o, err)
	seen := explain.Seen{Invocation: e.Getenv("INVOCATION_ID"), Waited: time.Since(began)}
	look(context.WithoutCancel(ctx), &seen, check, pid, err)
	seen.NoteBinding(string(o.App), supervisorState(o))
	if err := seen.Write(filepath.Dir(o.ControlPath(e)), o.Instance); err != nil {
		e.Log.Warn("note why the instance is not ready, ignoring", "instance", o.Instance, "error", err)
	}
	return fmt.Errorf("instance %d is not ready: %s", o.Instance, seen)
}

// errAppStops means that nobody waits for the instance any more, as the app is being stopped.
var errAppStops = errors.New("the app stops")

// look notes how the wait ended with err, and what the program does meanwhile if it still runs: PID
// 1 ends it next.
func look(ctx context.Context, seen *explain.Seen, check readiness.Check, pid int, err error) {
	var finding readiness.Finding
	switch {
	case errors.As(err, &finding):
		seen.Outcome, seen.Text = explain.Other, err.Error()
	case errors.Is(err, process.ErrEnded):
		seen.Outcome = explain.Ended
		return
	case errors.Is(err, readiness.ErrNotAccepted), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		seen.Outcome = explain.NotAccepted // or nobody could tell in time, on a machine that is busy
	default:
		seen.Outcome, seen.Text = explain.Other, err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, control.AnswerTimeout)
	defer cancel()
	seen.Addresses, _ = check.Addresses(ctx) // a balancer that has just gone cannot tell, and the rest is worth saying
	seen.Sockets = explain.Look(pid, seen.Addresses)
}

// supervisorState is what the supervisor of the instance has seen, which is in the same unit as
// this process. Where none runs, or the program has ended, its lines in the journal have to do.
func supervisorState(o command.Options) bindnotify.State {
	if app.Kind(o.Kind) != app.KindBind {
		return bindnotify.State{}
	}
	group, err := cgroup.Own()
	if err != nil {
		return bindnotify.State{}
	}
	state, _ := bindnotify.Find(cgroup.Dir(group))
	return state
}

// joinNetwork puts the calling thread into a network namespace.
func joinNetwork(path string) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("join network of %s: %w", path, os.NewSyscallError("setns", err))
	}
	return nil
}
