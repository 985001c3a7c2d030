package handoff

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Refuse closes a public listener to who comes, while what waits there stays: the app stops, and a connection that came
// now would make PID 1 start it again. For TCP the kernel drops connection requests; by the time a client repeats its own
// the port is closed. Of a unix socket the path is removed; an abstract one cannot be closed.
//
// It needs CAP_NET_ADMIN on kernels that keep socket filters to it, and the right to remove the path, so root does it.
func Refuse(listener int) error {
	name, err := unix.Getsockname(listener)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if path, ok := name.(*unix.SockaddrUnix); ok {
		if !strings.HasPrefix(path.Name, "/") {
			return nil
		}
		if st, err := os.Lstat(path.Name); err == nil && st.Mode().Type() != fs.ModeSocket {
			return nil // somebody has put something else there meanwhile
		}
		if err := os.Remove(path.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	err = unix.SetsockoptSockFprog(listener, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
}

// Admit undoes Refuse for TCP.
func Admit(listener int) error {
	err := unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	if errors.Is(err, unix.ENOENT) {
		err = nil // there was none
	}
	return os.NewSyscallError("setsockopt SO_DETACH_FILTER", err)
}
