package handoff

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Refuse closes a public listener to new connections; waiting connections stay. The app is
// stopping, and a new connection would make PID 1 start it again.
//
// For TCP, Refuse sets the minimum time to live of packets (IP_MINTTL, ip(7)) higher than that of
// any packet from a network or from loopback, so the kernel drops connection requests. The port is
// closed before a client repeats its request. A socket filter would work too, but the listener's
// filters are locked (package steer). For a unix socket, Refuse removes the path, which needs root.
// An abstract unix socket cannot be closed.
func Refuse(listener int) error {
	name, err := unix.Getsockname(listener)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if path, ok := name.(*unix.SockaddrUnix); ok {
		if !strings.HasPrefix(path.Name, "/") {
			return nil
		}
		if err := os.Remove(path.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return nearest(listener, 255)
}

// Admit undoes Refuse for TCP.
func Admit(listener int) error {
	if domain, err := unix.GetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain == unix.AF_UNIX {
		return os.NewSyscallError("getsockopt SO_DOMAIN", err)
	}
	return nearest(listener, 0)
}

// nearest makes a TCP listener drop packets whose time to live is below ttl. A dual-stack listener
// has both options.
func nearest(listener, ttl int) error {
	if err := unix.SetsockoptInt(listener, unix.IPPROTO_IP, unix.IP_MINTTL, ttl); err != nil {
		return os.NewSyscallError("setsockopt IP_MINTTL", err)
	}
	err := unix.SetsockoptInt(listener, unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, ttl)
	if err == unix.ENOPROTOOPT {
		err = nil // IPv4
	}
	return os.NewSyscallError("setsockopt IPV6_MINHOPCOUNT", err)
}
