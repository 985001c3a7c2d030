package readiness

import (
	"context"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/control"
)

// handed waits for an instance on the handoff path: it is ready when it asks for connections, and
// with HTTPPath when it has answered on one end of a socket pair, whose other end the shim hands
// over.
func (c Check) handed(ctx context.Context) error {
	if err := c.listening(ctx); err != nil {
		if ctx.Err() == nil {
			return err
		}
		return Finding("the program does not ask for connections: it runs, but on the handoff path it must get them through " +
			"package activation of unitgen; one that takes a listening socket from systemd needs --path=steer")
	}
	if c.HTTPPath == "" {
		return nil
	}
	return c.answered(ctx, func() (net.Conn, error) { return c.deliver(ctx) })
}

// deliver has one end of a socket pair handed to the instance, and returns the other.
func (c Check) deliver(ctx context.Context) (net.Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[1])
	file := os.NewFile(uintptr(pair[0]), "probe")
	defer file.Close()
	if err := control.Call(ctx, c.Control, control.MethodDeliver, control.Instance{Instance: c.Instance}, nil, pair[1]); err != nil {
		return nil, err
	}
	return net.FileConn(file)
}
