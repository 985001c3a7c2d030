package steer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// attach makes program the one that picks for the whole reuseport group of listener; it replaces, in one step, whatever
// program the group had. It borrows both descriptors; the group holds the program from then on, and the program its
// maps, for as long as any member of the group lives (socket(7), SO_ATTACH_REUSEPORT_EBPF).
func attach(listener, program int) error {
	if err := unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, program); err != nil {
		return fmt.Errorf("attach steering program: setsockopt SO_ATTACH_REUSEPORT_EBPF: %w", err)
	}
	return nil
}

// Detach takes the program, eBPF or classic, from the reuseport group of a listener, which it borrows. From then on the
// kernel spreads connections by hash over all members, drained ones and the parking listener included. A group without
// a program is left as it is.
func Detach(listener int) error {
	err := unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
	if err != nil && err != unix.ENOENT {
		return fmt.Errorf("detach steering program: setsockopt SO_DETACH_REUSEPORT_BPF: %w", err)
	}
	return nil
}
