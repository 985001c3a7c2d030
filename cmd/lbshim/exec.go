package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/bindnotify"
	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/listenfds"
)

// self is this program, also when its file has been replaced meanwhile.
const self = "/proc/self/exe"

// execute becomes the program of an instance, so that it has the process that PID 1 started. On
// success it does not return.
func execute(ctx context.Context, e *command.Env, o command.Options) error {
	switch app.Kind(o.Kind) {
	case app.KindNode:
		channel, environ, err := connectNode(ctx, e, o)
		if err != nil {
			return err
		}
		if app.Path(o.Path) == app.PathHandoff {
			return launch(o, channel, environ)
		}
		return executeBound(e, o, environ, channel)
	case app.KindBind:
		return executeBound(e, o, e.Environ())
	}
	return command.UsageError("--kind= must be bind or node, got %q", o.Kind)
}

// executeBound runs the program under a supervisor that answers bind(2) with the listeners that PID
// 1 passed. The program also gets them by LISTEN_FDS, and the descriptors of keep. If the kernel
// does not allow the supervisor, a program that takes LISTEN_FDS still works.
func executeBound(e *command.Env, o command.Options, environ []string, keep ...int) error {
	listeners, err := passedListeners()
	if err != nil && !o.Learn {
		return command.WithStatus(command.ExitNotConfigured, err)
	}
	mode := ""
	if o.Learn {
		mode = learnMode
	}
	runtime.LockOSThread() // the filter is the thread's, which becomes the program
	err = bindnotify.Launch(bindnotify.Command{
		Path:      self,
		Args:      []string{"lbshim", bindnotify.Verb, string(o.App), strconv.Itoa(o.Instance), strconv.Itoa(o.ProgramPort), mode},
		Env:       append(slices.Clone(answerEnvironment), "JOURNAL_STREAM="+e.Getenv("JOURNAL_STREAM")),
		Listeners: listeners,
	})
	switch {
	case errors.Is(err, bindnotify.ErrForbidden) && !o.Learn:
		e.LastWords().Warn(fmt.Sprintf("bind() of the program is not answered, it must take its socket from systemd (sd_listen_fds(3)): %v; "+
			"a SystemCallFilter= or the container that this system runs in must allow seccomp(2), else unitgen %s --kind=listen", err, o.App),
			"instance", o.Instance)
	case err != nil:
		return err
	}
	if !o.KeepPipe {
		// PID 1 starts programs with SIGPIPE ignored (IgnoreSIGPIPE=), which the Go runtime has
		// changed.
		signal.Ignore(syscall.SIGPIPE)
	}
	for _, fd := range keep { // only now: nothing else is to go with them
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	err = unix.Exec(o.Command[0], o.Command, environ)
	return command.WithStatus(command.ExitExec, fmt.Errorf("%s%w", explain.LauncherFailed, err))
}

// passedListeners returns the TCP listeners that PID 1 passed. The passed descriptors stay open
// over execve(2), for the program.
func passedListeners() ([]int, error) {
	passed, err := passedDescriptors()
	if err != nil {
		return nil, err
	}
	var listeners []int
	for _, fd := range passed {
		if _, err := unix.FcntlInt(uintptr(fd.Number), unix.F_SETFD, 0); err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		if isTCP(fd.Number) {
			listeners = append(listeners, fd.Number)
		}
	}
	return listeners, nil
}

// isTCP says that a descriptor is a socket that package net calls one of TCP: MPTCP is too.
func isTCP(fd int) bool {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	switch name.(type) {
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		return err == nil && kind == unix.SOCK_STREAM
	}
	return false
}

// passedDescriptors returns what PID 1 passed, which may be nothing.
func passedDescriptors() ([]listenfds.FD, error) {
	passed, err := listenfds.Own().Inherit()
	if errors.Is(err, listenfds.ErrNotPassed) {
		err = nil
	}
	return passed, err
}
