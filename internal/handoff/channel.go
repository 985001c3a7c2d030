package handoff

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff/wire"
)

// errEnded says that the instance has closed its end of the channel.
var errEnded = errors.New("channel ended")

// send sends one message, with copies of fds. It never waits: the error is unix.EAGAIN if the
// channel is full.
func send(channel int, m wire.Message, fds []int) error {
	var buf [wire.MaxSize]byte
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		_, err := unix.SendmsgN(channel, wire.Append(buf[:0], m), rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ETOOMANYREFS): // too many descriptors on their way, to whomever
			return unix.EAGAIN
		default:
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// hear reads one State. The error is unix.EAGAIN if none has arrived, and errEnded if none will
// arrive.
func hear(channel int) (wire.Message, error) {
	var buf [wire.MaxSize + 1]byte
	for {
		n, err := unix.Read(channel, buf[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case n == 0 && err == nil, errors.Is(err, unix.ECONNRESET):
			return wire.Message{}, errEnded
		case err != nil:
			return wire.Message{}, os.NewSyscallError("read", err)
		}
		return wire.FromInstance(buf[:n])
	}
}
