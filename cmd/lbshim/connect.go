package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/control"
)

// connect makes a channel to an instance that is starting, and gives it to the shim. Only root may
// use the socket, so that nobody else can hand connections over. The shim, which is not root, gets
// only the channel.
func connect(ctx context.Context, e *command.Env, o command.Options) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	err := control.Retry(ctx, func() error { return connectOnce(ctx, e, o) })
	if err != nil {
		joinNext(e, o, err)
		return fmt.Errorf("connect instance %d with its balancer: %w", o.Instance, err)
	}
	return nil
}

func connectOnce(ctx context.Context, e *command.Env, o command.Options) error {
	// Connecting to the control socket of a shim that is being stopped would make PID 1 start it
	// again.
	if there, err := shimAnswers(ctx, e, o); err != nil || !there {
		return errors.Join(err, errors.New("the app stops"))
	}
	fd, err := dialHandoff(o.HandoffPath(e))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return control.Call(ctx, o.ControlPath(e), control.MethodConnect, control.Instance{Instance: o.Instance}, nil, fd)
}

// dialHandoff never waits: a socket whose backlog is full, of channels that no program took, is an
// error.
func dialHandoff(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", path, err)
	}
	return fd, nil
}
