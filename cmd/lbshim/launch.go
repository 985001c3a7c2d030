package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/nodecluster"
)

// preload is the script that Node loads before the program, below the directory of lbshim.
const preload = "node/drain.cjs"

// connectNode connects a Node.js program with the shim. It returns the channel, which is closed at
// an execve(2), and what the program starts with.
func connectNode(ctx context.Context, e *command.Env, o command.Options) (channel int, environ []string, err error) {
	channel, err = openChannel(ctx, e, o)
	if err != nil {
		return -1, nil, fmt.Errorf("connect instance %d with its balancer: %w", o.Instance, err)
	}
	program, err := os.Executable()
	if err != nil {
		return -1, nil, err
	}
	script := filepath.Join(filepath.Dir(program), preload)
	if _, err := os.Stat(script); err != nil {
		e.Log.Warn("find preload, busy connections that are kept alive will hold a stop until the drain time-out", "error", err)
		script = ""
	}
	return channel, nodeEnvironment(e.Environ(), o, channel, script), nil
}

// launch becomes a Node.js program that the shim gives connections, so that the program has the
// process that PID 1 started. On success it does not return.
func launch(o command.Options, channel int, environ []string) error {
	passed, err := passedDescriptors()
	if err != nil {
		return command.WithStatus(command.ExitNotConfigured, err)
	}
	for _, fd := range passed { // what the unit has for programs in Go
		unix.Close(fd.Number)
	}
	if _, err := unix.FcntlInt(uintptr(channel), unix.F_SETFD, 0); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	err = unix.Exec(o.Command[0], o.Command, environ)
	return command.WithStatus(command.ExitExec, fmt.Errorf("%s%w", explain.LauncherFailed, err))
}

// nodeEnvironment returns the program's environment: PID 1's, the channel, and the variables that
// programs made for PM2 expect. Existing variables stay. Only on the handoff path is the program a
// cluster worker.
func nodeEnvironment(environ []string, o command.Options, channel int, script string) []string {
	var options string
	environ = slices.DeleteFunc(slices.Clone(environ), func(assignment string) bool {
		value, ok := strings.CutPrefix(assignment, "NODE_OPTIONS=")
		if ok {
			options = value
		}
		return ok || strings.HasPrefix(assignment, "NODE_CHANNEL_") || strings.HasPrefix(assignment, "NODE_UNIQUE_ID=")
	})
	if script != "" {
		ours := nodeOption("--require=" + script)
		if restricted(append(strings.Fields(options), o.Command[1:]...)) {
			ours += " " + nodeOption("--allow-fs-read="+script)
		}
		// The script takes itself out again: the program's children need it not.
		options = strings.TrimRight(ours+" "+options, " ")
	}
	if options != "" {
		environ = append(environ, "NODE_OPTIONS="+options)
	}
	environ = append(environ,
		"NODE_CHANNEL_FD="+strconv.Itoa(channel),
		"NODE_CHANNEL_SERIALIZATION_MODE=json")
	if app.Path(o.Path) == app.PathHandoff {
		environ = append(environ, "NODE_UNIQUE_ID="+strconv.Itoa(o.Instance))
	}
	if !slices.ContainsFunc(environ, func(a string) bool { return strings.HasPrefix(a, "NODE_APP_INSTANCE=") }) {
		environ = append(environ, "NODE_APP_INSTANCE="+strconv.Itoa(o.Instance-1)) // PM2 counts from 0
	}
	return environ
}

// restricted reports whether options turn on Node's permission model, under which a program reads
// only the paths that its options allow.
func restricted(options []string) bool {
	for _, option := range options {
		switch {
		case option == "--permission", option == "--experimental-permission":
			return true
		case !strings.HasPrefix(option, "-"):
			return false
		}
	}
	return false
}

// nodeOption writes an option for NODE_OPTIONS, where blanks separate and double quotes hold
// together.
func nodeOption(option string) string {
	if !strings.ContainsAny(option, ` "\`) {
		return option
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(option) + `"`
}

// channelTimeout is longer than joinTimeout, as the shim asks PID 1 which unit has connected, and a
// busy PID 1 may not answer for many seconds.
const channelTimeout = time.Minute

// openChannel returns a channel that the shim has greeted. A shim that crashes costs time and
// nothing else.
func openChannel(ctx context.Context, e *command.Env, o command.Options) (fd int, err error) {
	ctx, cancel := context.WithTimeout(ctx, channelTimeout)
	defer cancel()
	began := time.Now()
	err = control.Retry(ctx, func() error {
		if fd, err = dialChannel(ctx, o.ChannelPath(e)); err == nil {
			err = greeted(fd, o.Instance)
		}
		if err != nil && fd >= 0 {
			unix.Close(fd)
		}
		if errors.Is(err, os.ErrNotExist) && time.Since(began) > joinTimeout {
			return fmt.Errorf("%v (an app that was of another kind needs: systemctl restart %s)", err, o.App) // the end of retries
		}
		return err
	})
	return fd, err
}

func greeted(fd, instance int) error {
	greeting, err := nodecluster.AwaitGreeting(fd)
	switch {
	case err != nil:
		return err
	case greeting.Error != "":
		return fmt.Errorf("refused: %s", greeting.Error)
	case greeting.Instance != instance:
		return fmt.Errorf("taken for instance %d", greeting.Instance)
	}
	return nil
}

// dialChannel connects by hand, as package net would make the socket non-blocking and close it
// behind our back.
func dialChannel(ctx context.Context, path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	deadline, _ := ctx.Deadline()
	limit := unix.NsecToTimeval(max(time.Until(deadline), time.Millisecond).Nanoseconds())
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} { // the latter bounds connect(2)
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			return fd, os.NewSyscallError("setsockopt", err)
		}
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	for errors.Is(err, unix.EINTR) {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	if err != nil {
		return fd, fmt.Errorf("connect to %s: %w", path, err)
	}
	return fd, nil
}
