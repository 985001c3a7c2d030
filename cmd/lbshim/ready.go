package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/readiness"
)

// ready is ExecStartPost= of an instance that does not tell PID 1 itself when it can serve.
func ready(ctx context.Context, e *env, o options) error {
	check := readiness.Check{Control: o.controlPath(e), Instance: o.instance}
	switch how, path, _ := strings.Cut(o.check, ":"); how {
	case "listen":
	case "node":
		check.Node = true
	case "message":
		check.Node, check.Message = true, true
	case "http":
		check.HTTPPath = path
	default:
		return usageError("--check= must be listen, node, message or http:/PATH, got %q", o.check)
	}
	// The instance may have no network of its own; its listeners are in that of PID 1.
	runtime.LockOSThread()
	if !o.userUnits {
		if err := joinNetwork("/proc/1/ns/net"); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, o.startTimeout)
	defer cancel()
	if pid, err := strconv.Atoi(e.getenv("MAINPID")); err == nil {
		var stop context.CancelFunc
		ctx, stop = readiness.WithProcess(ctx, pid)
		defer stop()
	}
	err := control.Retry(ctx, func() error {
		// Connecting to the socket of a shim that is being stopped would make PID 1 start it again.
		if there, err := shimAnswers(ctx, e, o); err != nil || !there {
			return errors.Join(err, errors.New("the app stops"))
		}
		return check.Wait(ctx)
	})
	if errors.Is(err, readiness.ErrUnsupported) {
		e.log.Info("readiness is not checked: a single instance cannot be tried with classic BPF", "instance", o.instance)
		return nil
	}
	if err != nil {
		return fmt.Errorf("instance %d is not ready: %w", o.instance, err)
	}
	return nil
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
