package steer

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
)

// Listener is the result of Describe.
type Listener struct {
	Address   netip.AddrPort // as bound; [::] for a dual-stack listener
	DualStack bool           // IPv6 that takes IPv4 too (no IPV6_V6ONLY)
	Cookie    uint64         // SO_COOKIE: the same for each duplicate of one socket, never used again
}

// Describe describes fd, or returns why it cannot be steered to. fd must be a TCP socket over IPv4
// or IPv6 that listens with SO_REUSEPORT. Describe borrows fd and changes nothing.
func Describe(fd int) (Listener, error) {
	for _, want := range []struct {
		option, value int
		cause         string
	}{
		{unix.SO_TYPE, unix.SOCK_STREAM, "not a stream socket"},
		{unix.SO_PROTOCOL, unix.IPPROTO_TCP, "not TCP (MPTCP, SCTP and unix sockets cannot be steered)"},
		{unix.SO_ACCEPTCONN, 1, "it does not listen"},
		{unix.SO_REUSEPORT, 1, "SO_REUSEPORT is off (its socket unit needs ReusePort=yes)"},
	} {
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.option)
		if err != nil {
			return Listener{}, fmt.Errorf("describe listener: getsockopt: %w", err)
		}
		if got != want.value {
			return Listener{}, errors.New("describe listener: " + want.cause)
		}
	}
	cookie, err := sock.Cookie(fd)
	if err != nil {
		return Listener{}, fmt.Errorf("describe listener: %w", err)
	}
	address, err := sock.Name(fd)
	if err != nil {
		return Listener{}, fmt.Errorf("describe listener: %w", err)
	}
	l := Listener{Address: address, Cookie: cookie}
	if address.Addr().Is6() {
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err != nil {
			return Listener{}, fmt.Errorf("describe listener: getsockopt IPV6_V6ONLY: %w", err)
		}
		l.DualStack = only == 0
	}
	return l, nil
}
