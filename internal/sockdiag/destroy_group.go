package sockdiag

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// destroyGroups are the groups of IPv4 and IPv6.
var destroyGroups = [...]int{unix.SKNLGRP_INET_TCP_DESTROY, unix.SKNLGRP_INET6_TCP_DESTROY}

// eventPort is where a message about a destroyed socket has its local port, in network order.
const eventPort = unix.SizeofNlMsghdr + msgPort

// subscribe joins the groups, with a filter set before, so that nothing about other ports is ever
// queued.
func subscribe(fd int, ports []uint16) error {
	filter := portFilter(ports)
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("set port filter: %w", os.NewSyscallError("setsockopt", err))
	}
	for _, g := range destroyGroups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			err = fmt.Errorf("join netlink group %d: %w", g, os.NewSyscallError("setsockopt", err))
			return errors.Join(err, unsubscribe(fd))
		}
	}
	return nil
}

// unsubscribe leaves the groups, removes the filter and drops queued messages, with or without a
// subscription.
func unsubscribe(fd int) error {
	for _, g := range destroyGroups {
		// Leaving a group that was not joined is no error (net/netlink/af_netlink.c,
		// netlink_setsockopt).
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_DROP_MEMBERSHIP, g); err != nil {
			return fmt.Errorf("leave netlink group %d: %w", g, os.NewSyscallError("setsockopt", err))
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove port filter: %w", os.NewSyscallError("setsockopt", err))
	}
	return flush(fd, make([]byte, 1))
}

// portFilter is a classic BPF program that lets messages about the given local ports through.
func portFilter(ports []uint16) []unix.SockFilter {
	n := len(ports)
	prog := make([]unix.SockFilter, 0, n+3)
	prog = append(prog, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: eventPort})
	for i, p := range ports {
		// Jumps count from the next instruction: over the other ports and the refusal.
		prog = append(prog, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(n - i), K: uint32(p)})
	}
	const all = 0xffffffff
	return append(prog,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: all})
}
