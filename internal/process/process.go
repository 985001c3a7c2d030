// Package process follows processes to their end, by pidfds.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
)

// ErrEnded is the cause of a Context whose process has ended.
var ErrEnded = errors.New("the process has ended")

// Context returns a context that ends when the process does, so that nobody waits for what the
// process will not do any more. The caller calls the function that is returned. If the process has
// already gone, the context ends at once. If the kernel is too old to follow a process, it does not
// end.
func Context(ctx context.Context, pid int) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		cancel(ErrEnded)
		return ctx, func() {}
	}
	if err != nil {
		return ctx, func() { cancel(nil) }
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(fd)
		return ctx, func() { cancel(fmt.Errorf("follow process %d: %w", pid, os.NewSyscallError("eventfd", err))) }
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if waitReadable(fd, wake) {
			cancel(ErrEnded)
		}
	}()
	return ctx, func() {
		unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		<-done
		cancel(nil)
		unix.Close(wake)
		unix.Close(fd)
	}
}

// waitReadable reports whether the first descriptor became readable before the second.
func waitReadable(fd, wake int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	_, err := sock.Poll(poll, -1)
	return err == nil && poll[0].Revents != 0
}
