package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/unitgen/unitgen/internal/control"
)

// Limits of questions to others: a shim answers within milliseconds, and status must not wait for one that is stopped.
const (
	shimTimeout    = 2 * time.Second
	analyzeTimeout = 5 * time.Second
)

// askShim asks the shim for its status. The socket is root's: for others it is an error.
func askShim(ctx context.Context, controlPath string) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, shimTimeout)
	defer cancel()
	var answer json.RawMessage
	err := control.Call(ctx, controlPath, control.MethodStatus, struct{}{}, &answer)
	return answer, err
}

// shimStatus is the shim's answer, for what status prints of it.
type shimStatus struct{ control.Status }

// fromShim reads the shim's answer; nil if there is none, as for all but root.
func (s *shown) fromShim() *shimStatus {
	var answer shimStatus
	if s.Shim == nil || json.Unmarshal(s.Shim, &answer) != nil {
		return nil
	}
	return &answer
}

// describe says which path runs and why, and the strategy in force beside the one that was asked for.
func (a *shimStatus) describe(s *shown) (path, strategy string) {
	path, strategy = string(s.Path), string(s.Strategy)
	if a == nil {
		return path, strategy
	}
	if a.Path != "" && a.Reason != "" {
		path = a.Path + " (" + a.Reason + ")"
	}
	if a.Strategy != "" && a.Strategy != strategy {
		strategy = a.Strategy + " (settings: " + strategy + ")"
	}
	return path, strategy
}

// execute replaces this process by a program of $PATH.
func execute(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return os.NewSyscallError("execve", syscall.Exec(path, argv, os.Environ()))
}

// isCalendar asks systemd-analyze, which alone knows the grammar. A machine without it can write units all the same.
func isCalendar(text string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), analyzeTimeout)
	defer cancel()
	var exit *exec.ExitError
	return !errors.As(exec.CommandContext(ctx, "systemd-analyze", "calendar", "--", text).Run(), &exit)
}
