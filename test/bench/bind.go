package main

import (
	"context"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// startBind is startSteer for a server that opens its own port and knows of nobody else: its bind() is answered.
func startBind(ctx context.Context) (*target, error) {
	t := &target{name: "unitgen, steer, bind() answered"}
	port, err := freePort()
	if err != nil {
		return t, err
	}
	t.address = "127.0.0.1:" + strconv.Itoa(port)
	var fds []int
	for i := range instances {
		fd, err := t.listen(t.address)
		if err != nil {
			return t, err
		}
		if err := t.bound(ctx, i+1, fd, "/", os.Environ(), serverProgram, "tcp:"+strconv.Itoa(port)); err != nil {
			return t, err
		}
		fds = append(fds, fd)
	}
	if err := t.steer(fds); err != nil {
		return t, err
	}
	return t, t.awaitAll(ctx)
}

// bound starts a command whose bind() is answered with a duplicate of listener, which it borrows, as lbshim does it.
func (t *target) bound(ctx context.Context, number, listener int, dir string, environ []string, command ...string) error {
	dup, err := unix.FcntlInt(uintptr(listener), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(dup), "listener")
	defer file.Close()
	// LISTEN_PID is that of the shell, which becomes the launcher and then the program.
	const script = `number=$1; shift; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" exec bench "$number" --kind=bind -- "$@"`
	c := exec.CommandContext(ctx, "sh", append([]string{"-c", script, lbshimProgram, strconv.Itoa(number)}, command...)...)
	c.Dir, c.Env, c.Stderr, c.ExtraFiles = dir, environ, os.Stderr, []*os.File{file}
	return t.start(c)
}
