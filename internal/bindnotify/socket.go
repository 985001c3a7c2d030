package bindnotify

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
)

// socket is a descriptor of a socket.
type socket int

// socketID identifies a socket, the same for all of its duplicates.
type socketID struct{ device, inode uint64 }

func (s socket) close() { unix.Close(int(s)) }

func (s socket) id() (socketID, bool) {
	var st unix.Stat_t
	if err := unix.Fstat(int(s), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return socketID{}, false
	}
	return socketID{uint64(st.Dev), st.Ino}, true
}

func (s socket) option(level, name int) (int, bool) {
	v, err := unix.GetsockoptInt(int(s), level, name)
	return v, err == nil
}

// listens reports whether the socket is in state LISTEN.
func (s socket) listens() bool {
	v, ok := s.option(unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return ok && v != 0
}

// local is the address that the socket is bound to.
func (s socket) local() (netip.AddrPort, bool) {
	address, err := sock.Name(int(s))
	return address, err == nil
}

// setNonblocking has calls on the open file description, which all duplicates share, return at once
// or wait.
func (s socket) setNonblocking(on bool) error { return unix.SetNonblock(int(s), on) }
