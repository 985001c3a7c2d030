package main

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/unitgen/unitgen/internal/control"
)

// shimTimeout is more than a shim needs, which answers within milliseconds: status must not wait
// for one that is stopped.
const shimTimeout = 2 * time.Second

// askShim asks the shim for its status. The socket is root's: for others it is an error.
func askShim(ctx context.Context, controlPath string) (status control.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, shimTimeout)
	defer cancel()
	err = control.Call(ctx, controlPath, control.MethodStatus, struct{}{}, &status)
	return status, err
}

// execute replaces this process by a program of $PATH.
func execute(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return os.NewSyscallError("execve", syscall.Exec(path, argv, os.Environ()))
}
