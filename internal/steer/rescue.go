package steer

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrNowhere means that a queue cannot be moved because no other slot would take it. The kernel
// would then spread the queue over all members by hash, including drained ones.
var ErrNowhere = errors.New("no other member to move to")

// Rescue moves the connections that wait in a listener's accept queue to the members of the ring,
// in its order, or to the parking listener if the ring is empty. It returns how many waited. slot
// is the listener's slot. If the slot is still on the ring, new connections follow at once. Rescue
// borrows the listener and costs about half a millisecond, most of it to load and attach a program
// that nobody can have taken off.
//
// The kernel moves a queue when its listener stops listening, so Rescue stops the listener for an
// instant. A program that blocks in accept() on it gets EINVAL, and a program that polls sees a
// hang-up that is over when it looks. That is acceptable for a dead or stuck program, for which
// Rescue is meant. Connections in their handshake arrive at the old listener later: call Queue
// again after a round trip.
//
// Rescue leaves the listener alone if its queue is empty or it does not listen.
func (g *Group) Rescue(slot, listener int) (moved int, err error) {
	if err := checkSlot(slot); err != nil {
		return 0, fmt.Errorf("rescue queue: %w", err)
	}
	queued, backlog, err := Queue(listener)
	if errors.Is(err, ErrNotListening) {
		return 0, nil
	}
	if err != nil || queued == 0 {
		return 0, err
	}
	if err := g.checkRefuge(slot); err != nil {
		return 0, fmt.Errorf("rescue queue of slot %d: %w", slot, err)
	}
	// Without a program the kernel resets the waiting connections, and an instance may have taken
	// the program off since the last Guard.
	if err := g.attach(); err != nil {
		return 0, fmt.Errorf("rescue queue of slot %d: %w", slot, err)
	}
	if err := relisten(listener, backlog); err != nil {
		return 0, fmt.Errorf("rescue queue of slot %d: %w", slot, err)
	}
	// The kernel emptied the slot when the socket stopped listening (bpf_sk_reuseport_detach).
	return queued, g.Put(slot, listener)
}

// checkRefuge checks that the program will find a slot to move to, whichever ring entry it begins
// with: the parking listener, or if that is the one to empty, every member of the ring.
func (g *Group) checkRefuge(slot int) error {
	refuges := []uint16{Parking}
	if slot == Parking {
		refuges = g.Ring()
		slices.Sort(refuges)
		refuges = slices.Compact(refuges)
	}
	if len(refuges) == 0 {
		return fmt.Errorf("the ring is empty: %w", ErrNowhere)
	}
	for _, r := range refuges {
		cookie, err := g.Member(int(r))
		if err != nil {
			return err
		}
		if cookie == 0 {
			return fmt.Errorf("slot %d is empty: %w", r, ErrNowhere)
		}
	}
	return nil
}

// relisten ends and resumes listening on a socket: shutdown(SHUT_RD) is tcp_disconnect for a
// listener, upon which the kernel migrates its queue, and listen() brings it back into its
// reuseport group, as the last member.
//
// The two calls must be adjacent. PID 1 fails a socket unit on whose listener it sees a hang-up,
// and between the calls there is one to see. So they are made raw, without the scheduler of Go
// between them.
func relisten(listener, backlog int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, _, down := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(listener), unix.SHUT_RD, 0)
	_, _, up := unix.RawSyscall(unix.SYS_LISTEN, uintptr(listener), uintptr(backlog), 0)
	if down != 0 {
		return fmt.Errorf("shutdown listener: %w", down)
	}
	if up != 0 {
		return fmt.Errorf("listen: %w", up)
	}
	return nil
}
