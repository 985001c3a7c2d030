package steer

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// Classic steers without any privilege, by a classic BPF program. It is the second choice after
// Group, with the same methods where possible. Its picks are random by weight, not exact. It cannot
// move a queue, counts nothing, and keeps no state in the kernel that a later process could adopt.
//
// A classic program names a member by its index in the group. No interface reports the index, so
// Classic finds it by connection requests that the kernel drops at the member that they reach (see
// order). That needs sockets in the network namespace of the listeners. If the order cannot be
// found, SetRing fails with ErrOrder and attaches nothing.
//
// The index of a member changes when another member is closed: the last one takes its place. So to
// take a listener out, call Remove, close the listener, and call SetRing. To add a listener, call
// Put and SetRing. A listener that is closed without Remove can send connections to a drained
// instance until the next SetRing.
//
// Classic borrows listeners from Put to Remove, and is not safe for concurrent use.
type Classic struct {
	address Listener
	members map[int]int // slot to listener, borrowed
	index   map[int]int // slot to index in the group, as last found; nil before
	stale   bool        // a member came or went since
	leaving int         // how many went since
	ring    []uint16    // as set
	refuse  bool
	program []unix.SockFilter // what the group runs, as far as we know; nil before the first SetRing
}

// ErrOrder says that the order of the members in the kernel could not be found, so that nothing can
// be steered.
var ErrOrder = errors.New("order of the listeners in the kernel is not known")

// maxClassic is how many members can be on the ring: two instructions for each have to fit in
// net.core.optmem_max, 20 KiB on kernels before 6.9.
const maxClassic = 512

// NewClassic returns a group around the parking listener, which it borrows. It attaches nothing:
// until the first SetRing the program of an earlier process or the kernel's hash picks.
func NewClassic(parking int) (*Classic, error) {
	l, err := Describe(parking)
	if err != nil {
		return nil, err
	}
	return &Classic{address: l, members: map[int]int{Parking: parking}}, nil
}

// Close releases the listeners; the kernel still steers by the last ring (see Detach).
func (c *Classic) Close() error {
	c.members = nil
	return nil
}

// Put makes a listener, which it borrows until Remove, the member of a slot. It takes effect with
// the next SetRing.
func (c *Classic) Put(slot, listener int) error {
	if err := checkSlot(slot); err != nil {
		return fmt.Errorf("put listener: %w", err)
	}
	l, err := Describe(listener)
	if err != nil {
		return fmt.Errorf("put listener in slot %d: %w", slot, err)
	}
	if l.Address != c.address.Address || l.DualStack != c.address.DualStack {
		return fmt.Errorf("put listener in slot %d: it is bound to %v, the group to %v (both must agree on IPV6_V6ONLY)",
			slot, l.Address, c.address.Address)
	}
	if slot != Parking {
		if err := Lock(listener); err != nil {
			return fmt.Errorf("put listener in slot %d: %w", slot, err)
		}
	}
	c.members[slot] = listener
	c.stale = true
	return nil
}

// Remove forgets the listener of a slot. It steers past this listener, and past the last members of
// the group, whose index changes when removed listeners are closed. Call SetRing after the close.
func (c *Classic) Remove(slot int) error {
	if err := checkSlot(slot); err != nil {
		return fmt.Errorf("remove listener: %w", err)
	}
	if _, ok := c.members[slot]; !ok {
		return nil
	}
	delete(c.members, slot)
	c.stale = true
	if c.index == nil {
		return nil
	}
	c.leaving++
	still := slices.Max(slices.Collect(maps.Values(c.index))) - c.leaving // the last index that stays what it is
	c.ring = slices.DeleteFunc(c.ring, func(s uint16) bool { return int(s) == slot })
	safe := slices.DeleteFunc(slices.Clone(c.ring), func(s uint16) bool { return c.index[int(s)] > still })
	return c.attach(weighted(safe, c.index))
}

// SetRing sets the slots that take connections, at random, each with a probability by its number of
// entries in the ring. An empty ring parks. After Put or Remove SetRing first finds the order of
// the members, in about a millisecond for ten members. Until it has done so for the first time, the
// kernel spreads by hash over all members, including drained ones.
func (c *Classic) SetRing(ring []uint16) error {
	if len(ring) > MaxRing {
		return fmt.Errorf("set ring: at most %d entries, got %d", MaxRing, len(ring))
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(ring)))
	if len(distinct) > maxClassic {
		return fmt.Errorf("set ring: at most %d instances without eBPF, got %d", maxClassic, len(distinct))
	}
	for i, slot := range ring {
		if _, ok := c.members[int(slot)]; !ok || slot == Parking {
			return fmt.Errorf("set ring: entry %d: slot %d has no instance's listener", i, slot)
		}
	}
	if c.index == nil || c.stale {
		index, err := c.order()
		if err != nil {
			return fmt.Errorf("set ring: %w", err)
		}
		c.index, c.stale, c.leaving = index, false, 0
	}
	c.ring = slices.Clone(ring)
	return c.steer()
}

// steer attaches the program for the current ring.
func (c *Classic) steer() error {
	if c.refuse {
		return c.attach(weighted(nil, c.index))
	}
	return c.attach(weighted(c.ring, c.index))
}

// Ring returns the ring that was set.
func (c *Classic) Ring() []uint16 { return slices.Clone(c.ring) }

// Refuse parks all new connections, as a classic program cannot refuse: they are refused when the
// parking listener is closed.
func (c *Classic) Refuse() error {
	c.refuse = true
	if c.index == nil {
		return nil
	}
	return c.steer()
}

// Admit ends Refuse.
func (c *Classic) Admit() error {
	c.refuse = false
	if c.index == nil {
		return nil
	}
	return c.steer()
}

// Rescue fails with errors.ErrUnsupported. With a classic program the kernel resets the queue of a
// listener that stops listening, or with net.ipv4.tcp_migrate_req=1 spreads the queue over all
// members, including drained ones. The caller must accept the waiting connections and hand them on.
func (c *Classic) Rescue(slot, _ int) (int, error) {
	return 0, fmt.Errorf("rescue queue of slot %d: a classic BPF program cannot move it: %w", slot, errors.ErrUnsupported)
}

// Steered returns zero: nothing is counted.
func (c *Classic) Steered(int) uint64 { return 0 }

// Open returns zero: nothing is counted.
func (c *Classic) Open(int) uint64 { return 0 }

// Totals returns the zero value: nothing is counted.
func (c *Classic) Totals() Totals { return Totals{} }

// attach attaches program to the group and remembers it.
func (c *Classic) attach(program []unix.SockFilter) error {
	if err := attachClassic(c.members[Parking], program); err != nil {
		return err
	}
	c.program = program
	return nil
}

// Guard attaches the program again each time, as no interface reports whether an instance has taken
// it off. So it never returns what was wrong.
func (c *Classic) Guard() (wrong string, err error) {
	if c.program == nil {
		return "", nil
	}
	return "", c.attach(c.program)
}
