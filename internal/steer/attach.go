package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// attach loads the program of the group's strategy and makes it pick for the whole reuseport group,
// in place of the previous program, in one step (socket(7), SO_ATTACH_REUSEPORT_EBPF). From then on
// the reuseport group holds the program, and the program its maps, while any member lives. The shim
// holds no program (see tether).
//
// The program is attached through the parking listener, which no instance has, because attaching
// fails on a listener whose filters are locked.
func (g *Group) attach() error {
	program, err := loadProgram(g.strategy, g.slots, g.shared)
	if err != nil {
		return err
	}
	defer program.Close()
	next, err := newTether(program)
	if err != nil {
		return err
	}
	if err := attach(g.parking, program); err != nil {
		return errors.Join(err, next.close())
	}
	last := g.tether
	g.tether = next
	if last == nil {
		return nil
	}
	return last.close()
}

func attach(listener int, program *ebpf.Program) error {
	if err := unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, program.FD()); err != nil {
		return fmt.Errorf("attach steering program: setsockopt SO_ATTACH_REUSEPORT_EBPF: %w", err)
	}
	return nil
}

// Guard attaches the program again if somebody took it off, and returns what was wrong, or an empty
// string. Every process with a member of the group can take the program off
// (SO_DETACH_REUSEPORT_BPF needs no privilege), but cannot attach another one (see Lock). Until the
// next Guard the kernel spreads connections by hash over all members, including drained ones and
// the parking listener. Guard costs one system call, about a microsecond, if nothing was taken off.
func (g *Group) Guard() (wrong string, err error) {
	holds, err := g.tether.holds(g.trial)
	if err != nil || holds {
		return "", err
	}
	return "the steering program was taken off", g.attach()
}

// Lock removes a socket filter from a listener. It prevents every holder from setting another
// filter, or a program for the reuseport group, while the socket lives (SO_LOCK_FILTER, socket(7)).
// Nobody can undo it, not even root. Accepted connections inherit it.
func Lock(listener int) error {
	err := unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	if err != nil && err != unix.ENOENT && err != unix.EPERM { // no filter; locked already
		return fmt.Errorf("take filter off listener: setsockopt SO_DETACH_FILTER: %w", err)
	}
	if err := unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); err != nil {
		return fmt.Errorf("lock filters of listener: setsockopt SO_LOCK_FILTER: %w", err)
	}
	return nil
}
