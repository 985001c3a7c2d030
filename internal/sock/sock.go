// Package sock has what several packages ask the kernel of a socket, named after the calls.
//
// Package activation is for other people's programs and has its own, so that it needs no more of
// this module than the wire format.
package sock

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// Rights takes the descriptors out of control data (SCM_RIGHTS, unix(7)). The caller owns them,
// also those beside an error.
func Rights(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control data: %w", err)
	}
	for i := range messages {
		if messages[i].Header.Level != unix.SOL_SOCKET || messages[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		some, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, fmt.Errorf("parse descriptors: %w", err)
		}
		fds = append(fds, some...)
	}
	return fds, nil
}

// Cookie returns the kernel's number of the socket fd (SO_COOKIE, socket(7)). All duplicates of a
// socket have the same number, which is never used again while the system runs.
func Cookie(fd int) (uint64, error) {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	return cookie, os.NewSyscallError("getsockopt SO_COOKIE", err)
}

// Name returns the address that the TCP or UDP socket fd is bound to (getsockname(2)).
func Name(fd int) (netip.AddrPort, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	address, ok := AddrPort(name)
	if !ok {
		return address, fmt.Errorf("address is %T, not IPv4 or IPv6", name)
	}
	return address, nil
}

// AddrPort converts an address of the kernel's; false if it is neither IPv4 nor IPv6. It leaves out
// the zone.
func AddrPort(a unix.Sockaddr) (netip.AddrPort, bool) {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), true
	}
	return netip.AddrPort{}, false
}

// Sockaddr is the opposite of AddrPort.
func Sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// Family is the address family of a socket for a.
func Family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Local returns the addresses at which a listener is reached from its own host, best first. One for
// every IPv6 address may take IPv4 too: a host may have IPv6 listeners and no IPv6 address
// (net.ipv6.conf.all.disable_ipv6=1).
func Local(listener netip.AddrPort) []netip.AddrPort {
	v4 := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), listener.Port())
	switch a := listener.Addr(); {
	case a == netip.IPv6Unspecified():
		return []netip.AddrPort{netip.AddrPortFrom(netip.IPv6Loopback(), listener.Port()), v4}
	case a.IsUnspecified():
		return []netip.AddrPort{v4}
	}
	return []netip.AddrPort{listener}
}
