package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/bindnotify"
	"github.com/unitgen/unitgen/internal/explain"
)

// self is this program, also when its file has been replaced meanwhile.
const self = "/proc/self/exe"

// exitExec is EXIT_EXEC of systemd, with which PID 1 ends a process that it cannot turn into the
// program.
const exitExec = 203

// execute becomes the program of an instance, so that it has the process that PID 1 started. On
// success it does not return.
func execute(ctx context.Context, e *env, o options) error {
	switch app.Kind(o.kind) {
	case app.KindNode:
		channel, environ, err := connectNode(ctx, e, o)
		if err != nil {
			return err
		}
		if app.Path(o.path) == app.PathHandoff {
			return launch(o, channel, environ)
		}
		return executeBound(e, o, environ, channel)
	case app.KindBind:
		return executeBound(e, o, e.environ())
	}
	return usageError("--kind= must be bind or node, got %q", o.kind)
}

// executeBound runs the program under a supervisor that answers bind(2) with the listeners that PID
// 1 passed. The program also gets them by LISTEN_FDS, and the descriptors of keep. If the kernel
// does not allow the supervisor, a program that takes LISTEN_FDS still works.
func executeBound(e *env, o options, environ []string, keep ...int) error {
	listeners, err := passedListeners()
	if err != nil && !o.learn {
		return &statusError{exitNotConfigured, err}
	}
	mode := ""
	if o.learn {
		mode = learnMode
	}
	runtime.LockOSThread() // the filter is the thread's, which becomes the program
	err = bindnotify.Launch(bindnotify.Command{
		Path:      self,
		Args:      []string{"lbshim", bindnotify.Verb, string(o.app), strconv.Itoa(o.instance), strconv.Itoa(o.programPort), mode},
		Env:       append(slices.Clone(answerEnvironment), "JOURNAL_STREAM="+e.getenv("JOURNAL_STREAM")),
		Listeners: listeners,
	})
	switch {
	case errors.Is(err, bindnotify.ErrForbidden) && !o.learn:
		lastWords(e).Warn(fmt.Sprintf("bind() of the program is not answered, it must take its socket from systemd (sd_listen_fds(3)): %v; "+
			"a SystemCallFilter= or the container that this system runs in must allow seccomp(2), else unitgen %s --kind=listen", err, o.app),
			"instance", o.instance)
	case err != nil:
		return err
	}
	if !o.keepPipe {
		// PID 1 starts programs with SIGPIPE ignored (IgnoreSIGPIPE=), which the Go runtime has
		// changed.
		signal.Ignore(syscall.SIGPIPE)
	}
	for _, fd := range keep { // only now: nothing else is to go with them
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	err = unix.Exec(o.command[0], o.command, environ)
	return &statusError{exitExec, fmt.Errorf("%s%w", explain.LauncherFailed, err)}
}

// passedListeners returns the TCP listeners that PID 1 passed. The passed descriptors stay open
// over execve(2), for the program.
func passedListeners() ([]int, error) {
	passed, err := activation.Inherit()
	if err != nil {
		return nil, err
	}
	var listeners []int
	for _, d := range passed.All() {
		fd, err := d.Take()
		if err != nil {
			return nil, err
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		if _, tcp := d.Addr().(*net.TCPAddr); tcp {
			listeners = append(listeners, fd)
		}
	}
	return listeners, nil
}
