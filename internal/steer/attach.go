package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// attach loads the program of the group's strategy and makes it the one that picks for the whole reuseport group, in
// place of whatever the group had, in one step (socket(7), SO_ATTACH_REUSEPORT_EBPF). The reuseport group holds the
// program from then on, and the program its maps, for as long as any member lives; the shim holds no program (see tether).
//
// It goes by way of the parking listener, which no instance has: on a listener whose filters are locked attaching fails.
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

// Guard attaches the program again if somebody took it off, and says so; empty if nobody did. Every process that has a
// member of the group can take it off (SO_DETACH_REUSEPORT_BPF asks for no privilege), and none can put another one in its
// place (see Lock). Until the next Guard the kernel spreads connections by hash over all members then, drained ones and
// the parking listener included. It costs one system call, about a microsecond, where nothing was taken off.
func (g *Group) Guard() (wrong string, err error) {
	holds, err := g.tether.holds(g.trial)
	if err != nil || holds {
		return "", err
	}
	return "the steering program was taken off", g.attach()
}

// Lock takes away a socket filter that somebody gave a listener, and keeps every holder from giving it another one, or a
// program to its reuseport group, for as long as the socket lives (SO_LOCK_FILTER, socket(7)). It cannot be undone, not by
// root either. Accepted connections inherit it.
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
