package bindnotify

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// longestAddress is sizeof(struct sockaddr_in6); what stands behind it the kernel does not read
// either.
const longestAddress = 28

// parseAddress reads the address that a program passes to bind(2) for a socket of family domain, as
// inet_bind_sk and inet6_bind_sk of the kernel do. ok is false for addresses that are not of TCP or
// UDP, or that the kernel would refuse; the kernel answers these.
func parseAddress(domain int, raw []byte) (address netip.AddrPort, ok bool) {
	if len(raw) < shortestAddress {
		return netip.AddrPort{}, false
	}
	family := int(binary.NativeEndian.Uint16(raw))
	port := binary.BigEndian.Uint16(raw[2:])
	switch {
	case family == unix.AF_INET && domain == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port), true
	case family == unix.AF_INET6 && domain == unix.AF_INET6 && len(raw) >= 24: // SIN6_LEN_RFC2133: no scope
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), port), true
	}
	return netip.AddrPort{}, false
}

// mayBeOurs says by the first bytes of an address whether its socket is worth a look.
func mayBeOurs(raw []byte) bool {
	if len(raw) < shortestAddress {
		return false
	}
	family := int(binary.NativeEndian.Uint16(raw))
	return (family == unix.AF_INET || family == unix.AF_INET6) && binary.BigEndian.Uint16(raw[2:]) != 0
}

// Listener is a listener of the instance.
type Listener struct {
	FD      int // lent
	Address netip.AddrPort

	socket socketID
}

// fit says how a listener answers what a program asks for.
type fit int

const (
	noFit     fit = iota // the app has no such port or address
	noFamily             // the listener is IPv6, which programs for IPv4 cannot read the peers of
	fitsWider            // it is open to more than the program asks for
	fits
)

// pick returns the listener that answers a bind of a socket of family domain to ask, and how well
// it matches.
//
// A program for IPv4 never gets an IPv6 listener: it cannot read the addresses of its peers, and
// some programs crash. A program for IPv6 handles IPv4 (tried: Go, Java, Node.js, Caddy, nginx), so
// it gets a listener of its family if there is one, otherwise the other. If the app listens on
// fewer addresses than the program asks for, the app's addresses count.
func pick(listeners []Listener, programPort uint16, domain int, ask netip.AddrPort) (best int, how fit) {
	want := ask.Addr().Unmap()
	score := -1
	for i, l := range listeners {
		have := l.Address.Addr()
		if l.Address.Port() != ask.Port() && (programPort == 0 || programPort != ask.Port()) {
			continue
		}
		exact := have == want || have.IsLoopback() && want.IsLoopback()
		if !exact && !have.IsUnspecified() && !want.IsUnspecified() {
			continue
		}
		points, f := 1, fits
		switch {
		case domain == unix.AF_INET && have.Is6():
			points, f = 0, noFamily
		case !want.IsUnspecified() && have.IsUnspecified():
			f = fitsWider
		}
		if exact {
			points += 4 * points
		}
		if f != noFamily && have.Is4() == (domain == unix.AF_INET) {
			points += 2
		}
		if points > score {
			best, how, score = i, f, points
		}
	}
	return best, how
}
