package main

import (
	"context"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// startBind is startSteer for a server that opens its own port and knows of nobody else: its bind()
// is answered.
func startBind(ctx context.Context) (*target, error) {
	return opener{name: "unitgen, steer, bind() answered", command: func(port string) ([]string, error) {
		return []string{serverProgram, "tcp:" + port}, nil
	}}.startSteer(ctx)
}

// bound starts a command whose bind() is answered with a duplicate of listener, which it borrows,
// as lbshim does it.
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
