package channel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/systemd"
)

// admitTimeout bounds the questions to PID 1 about a peer. Only the peer waits for them, and its
// launcher waits as long: PID 1 does not read while it reloads, or has many units to start.
const admitTimeout = time.Minute

// stranger is what a peer that is no main process of an instance is refused with.
type stranger struct{ reason string }

func (s *stranger) Error() string { return s.reason }

func strangerf(format string, a ...any) error { return &stranger{fmt.Sprintf(format, a...)} }

// whoIs returns the instance whose main process is at the other end of conn. It does not ask the
// peer: the kernel names the process, and PID 1 its unit. (/proc could tell too, but ProtectProc=
// closes it to the shim.) The error is a *stranger if the peer is no main process, and another one
// if that could not be found out.
func (c *Channels) whoIs(ctx context.Context, conn *net.UnixConn) (int, error) {
	pid, pidfd, err := peer(conn)
	if err != nil {
		return 0, err
	}
	defer unix.Close(pidfd)
	ctx, cancel := context.WithTimeout(ctx, admitTimeout)
	defer cancel()
	manager, err := systemd.Dial(ctx, c.options.Manager)
	if err != nil {
		return 0, err
	}
	defer manager.Close()
	name, err := manager.UnitByPID(ctx, pid)
	if systemd.IsNoUnitForPID(err) {
		return 0, strangerf("%v", err)
	}
	if err != nil {
		return 0, err
	}
	unit, ok := c.options.App.ParseUnit(name)
	if !ok || unit.Role != app.RoleInstance || unit.Instance == 0 {
		return 0, strangerf("process %d is of %s, no instance of the app", pid, name)
	}
	state, err := manager.Unit(ctx, name)
	if err != nil {
		return 0, err
	}
	if state.MainPID != pid {
		return 0, strangerf("process %d is not the main process of %s", pid, name)
	}
	// Only now: if it lives, the number was its own all the time.
	if ended(pidfd) {
		return 0, strangerf("process %d of %s has ended", pid, name)
	}
	return unit.Instance, nil
}

// peer returns the process that has made a connection, by number and by a pidfd that the caller
// closes. Before Linux 6.5 the pidfd is opened by number: a process that connects and ends before
// the shim looks leaves its number to another. That other one would have to be an instance's main
// process, so it takes a wrap-around of all numbers in that time.
func peer(conn *net.UnixConn) (pid, pidfd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, -1, err
	}
	var cred *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			err = os.NewSyscallError("getsockopt SO_PEERCRED", err)
			return
		}
		pidfd, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		if errors.Is(err, unix.ENOPROTOOPT) {
			pidfd, err = unix.PidfdOpen(int(cred.Pid), 0)
		}
		err = os.NewSyscallError("open pidfd of peer", err)
	})
	if err == nil {
		err = controlErr
	}
	if err != nil {
		return 0, -1, fmt.Errorf("identify peer: %w", err)
	}
	unix.CloseOnExec(pidfd)
	return int(cred.Pid), pidfd, nil
}

// peerUser returns the user who has made a connection.
func peerUser(conn *net.UnixConn) (uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = cred.Uid
		}
	})
	if err == nil {
		err = controlErr
	}
	if err != nil {
		return 0, fmt.Errorf("identify peer: %w", err)
	}
	return uid, nil
}

// ended says whether the process of a pidfd has ended.
func ended(pidfd int) bool {
	poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := sock.Poll(poll, 0)
	return err != nil || n > 0
}
