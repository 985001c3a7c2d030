package steer

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
)

// Group steers the connections of one public address; a dual-stack [::]:port is one group. It owns
// its maps, and borrows all listeners. It is not safe for concurrent use: one goroutine owns it.
type Group struct {
	parking  int      // borrowed; the program is attached by it
	address  Listener // of the parking listener: what every member must equal, except the cookie
	slots    *ebpf.Map
	shared   *ebpf.Map
	state    *state
	strategy balance.Strategy // one that has a program, see programOf
	tether   *tether          // says whether the program is attached
	trial    *ebpf.Map        // what tethers are tried with
	marks    *ebpf.Map        // nil unless connections are counted
	counter  link.Link        // likewise
}

// New makes a group around the parking listener, which it borrows, and attaches the program with an
// empty ring: every connection waits at the parking listener until SetRing names instances. Close
// the group when done with it.
//
// store is called once, with all maps, before anything uses them: it must put duplicates where the
// next process finds them (see Adopt), because a listener sits in one map only, and while the
// attached program holds a map that no process can reach, no other map takes its listener (EBUSY).
// It borrows the descriptors. New recovers from such an orphan: it attaches its own program in
// place of the old one, upon which the kernel lets the old map go; for that short time the kernel
// may spread connections by hash over all members.
func New(parking int, store func(Maps) error) (*Group, error) {
	slots, shared, err := newMaps()
	if err != nil {
		return nil, err
	}
	if err := store(Maps{Slots: slots.FD(), State: shared.FD()}); err != nil {
		return nil, errors.Join(fmt.Errorf("store maps: %w", err), slots.Close(), shared.Close())
	}
	return start(parking, slots, shared, balance.RoundRobin)
}

// Adopt takes over the maps of a group that an earlier process made. It loads and attaches the
// program of this release: ring, slots and counters stay as they are, and no connection is
// affected. The parking listener is borrowed and put into its slot if it is not there.
//
// strategy is the strategy to continue with. A strategy that needs Count begins as RoundRobin,
// until Pick.
//
// Adopt owns the descriptors of m from the call on, also when it fails. An error that wraps
// ErrLayout means that this release cannot use the maps: take them out of the store, or they hold
// on to the listeners, and call New. On any error the group still steers as before.
func Adopt(parking int, m Maps, strategy balance.Strategy) (*Group, error) {
	slots, shared, err := takeMaps(m)
	if err != nil {
		return nil, err
	}
	return start(parking, slots, shared, strategy)
}

// start builds the group over its maps, which it owns from the call on.
func start(parking int, slots, shared *ebpf.Map, strategy balance.Strategy) (g *Group, err error) {
	if strategy = programOf(strategy); strategy.CountsConnections() {
		strategy = balance.RoundRobin
	}
	g = &Group{parking: parking, slots: slots, shared: shared, strategy: strategy}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
			g = nil
		}
	}()
	if g.address, err = Describe(parking); err != nil {
		return g, err
	}
	if g.state, err = openState(shared.FD()); err != nil {
		return g, err
	}
	if version := g.state.word(offVersion).Load(); version != layoutVersion {
		return g, fmt.Errorf("read state map: version %#x, not %#x: %w", version, uint64(layoutVersion), ErrLayout)
	}
	if g.trial, err = socketMap("unitgen_trial"); err != nil {
		return g, err
	}
	if err := g.attach(); err != nil {
		return g, err
	}
	return g, g.Put(Parking, parking)
}

// Maps returns the descriptors of the group's maps; they are borrowed, and valid until Close.
func (g *Group) Maps() Maps { return Maps{Slots: g.slots.FD(), State: g.shared.FD()} }

// Close releases the maps and the program; the kernel still steers by the last ring. To end that
// too, use Detach or close the listeners. The group must not be used after Close.
func (g *Group) Close() error {
	var err error
	if g.state != nil {
		err = g.state.close()
	}
	if g.trial != nil {
		err = errors.Join(err, g.trial.Close())
	}
	if g.tether != nil {
		err = errors.Join(err, g.tether.close())
	}
	if g.marks != nil {
		err = errors.Join(err, g.counter.Close(), g.marks.Close())
	}
	return errors.Join(err, g.shared.Close(), g.slots.Close())
}

// How long Put waits for the kernel to release a listener. The kernel frees the map of a replaced
// program in a work item after an RCU grace period, without notice: some milliseconds, more on a
// loaded machine.
const (
	busyLimit = 2 * time.Second
	busyPause = 2 * time.Millisecond
)

// Put makes a listener the member of a slot, in place of the previous member, and locks its filters
// unless it is the parking listener (see Lock). It borrows the listener; the kernel empties the
// slot when the socket's last descriptor is closed or the socket stops listening. Putting a
// listener again into its slot does no harm.
//
// Put fails for a listener of another address, and for a listener that is in another slot or in the
// map of another shim (unix.EBUSY): a socket can be in one map only.
func (g *Group) Put(slot, listener int) error {
	if err := checkSlot(slot); err != nil {
		return fmt.Errorf("put listener: %w", err)
	}
	l, err := Describe(listener)
	if err != nil {
		return fmt.Errorf("put listener in slot %d: %w", slot, err)
	}
	if l.Address != g.address.Address || l.DualStack != g.address.DualStack {
		return fmt.Errorf("put listener in slot %d: it is bound to %v, the group to %v (both must agree on IPV6_V6ONLY)",
			slot, l.Address, g.address.Address)
	}
	if slot != Parking {
		if err := Lock(listener); err != nil {
			return fmt.Errorf("put listener in slot %d: %w", slot, err)
		}
	}
	err = g.place(slot, listener, l.Cookie)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	if at, ok := g.find(l.Cookie); ok {
		return fmt.Errorf("put listener in slot %d: it is in slot %d: %w", slot, at, err)
	}
	// The map of an earlier program still holds the socket. start has replaced that program, so the
	// kernel frees that map.
	for waited := time.Duration(0); errors.Is(err, unix.EBUSY) && waited < busyLimit; waited += busyPause {
		time.Sleep(busyPause)
		err = g.place(slot, listener, l.Cookie)
	}
	return err
}

// place writes a listener into its slot, unless it is there already.
func (g *Group) place(slot, listener int, cookie uint64) error {
	if g.marks != nil {
		if err := g.mark(slot, listener); err != nil {
			return err
		}
	}
	if there, err := g.Member(slot); err != nil || there == cookie {
		return err
	}
	if err := g.slots.Update(uint32(slot), uint64(listener), ebpf.UpdateAny); err != nil {
		return fmt.Errorf("put listener in slot %d: %w", slot, err)
	}
	return nil
}

// find returns the slot that holds the socket with this cookie.
func (g *Group) find(cookie uint64) (int, bool) {
	for slot := range Slots {
		if there, err := g.Member(slot); err == nil && there == cookie {
			return slot, true
		}
	}
	return 0, false
}

// Member returns the SO_COOKIE of the listener in a slot; zero means that the slot is empty.
func (g *Group) Member(slot int) (uint64, error) {
	if err := checkSlot(slot); err != nil {
		return 0, fmt.Errorf("look up member: %w", err)
	}
	var cookie uint64
	err := g.slots.Lookup(uint32(slot), &cookie)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, fmt.Errorf("look up slot %d: %w", slot, err)
	}
	return cookie, nil
}

// Remove empties a slot; an empty slot stays empty. The listener stays open and a member of the
// reuseport group, but the program no longer finds it. Waiting connections stay in its queue: see
// Rescue.
func (g *Group) Remove(slot int) error {
	if err := checkSlot(slot); err != nil {
		return fmt.Errorf("remove listener: %w", err)
	}
	if err := g.slots.Delete(uint32(slot)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("remove listener of slot %d: %w", slot, err)
	}
	return nil
}

// SetRing makes ring the order of picks for all connection requests from now on, in one step. The
// ring holds slot numbers of instances, each as often as its weight, at most MaxRing; an empty ring
// parks every connection.
//
// A request that the program is handling on another CPU at this moment may still follow the old
// ring. Connections in their handshake go where they were steered: an instance taken off the ring
// gets these for one round trip.
func (g *Group) SetRing(ring []uint16) error {
	if len(ring) > MaxRing {
		return fmt.Errorf("set ring: at most %d entries, got %d", MaxRing, len(ring))
	}
	for i, slot := range ring {
		if slot == Parking || slot >= Slots {
			return fmt.Errorf("set ring: entry %d: slot must be between 1 and %d, got %d", i, Slots-1, slot)
		}
	}
	if next := entries(g.strategy, ring); !slices.Equal(next, g.state.ring()) {
		g.state.setRing(next)
	}
	return nil
}

// Ring returns the current order of picks, also if an earlier process set it. With LeastConnections
// the ring holds the same slots equally often, in another order.
func (g *Group) Ring() []uint16 { return unfold(g.state.ring()) }

// Refuse makes the kernel refuse new connections (RST), as if nothing listened; connections in the
// queue or in their handshake are not affected. It is for stop, and outlives the shim, as the ring
// does. It cannot fail; the same method of Classic can.
func (g *Group) Refuse() error {
	g.state.word(offControl).Or(controlClosed)
	return nil
}

// Admit ends Refuse.
func (g *Group) Admit() error {
	g.state.word(offControl).And(^uint64(controlClosed))
	return nil
}

// Steered returns how many connections the program gave to a slot since the maps were made, or
// parked for slot Parking. Safe for concurrent use with everything except Close; slots out of range
// have none.
func (g *Group) Steered(slot int) uint64 {
	if checkSlot(slot) != nil {
		return 0
	}
	return g.state.word(offSteered + 8*slot).Load()
}

// Totals are counters of a whole group since its maps were made.
type Totals struct {
	Migrated uint64 // moved from a listener that went away or was rescued; also in Steered
	Refused  uint64 // connection requests refused because of Refuse
	Unplaced uint64 // spread by the kernel's hash over all members, drained ones too, because no slot would take them
}

// Totals returns the group's counters. Safe for concurrent use with everything except Close.
func (g *Group) Totals() Totals {
	return Totals{
		Migrated: g.state.word(offMigrated).Load(),
		Refused:  g.state.word(offRefused).Load(),
		Unplaced: g.state.word(offPassed).Load(),
	}
}

// Placed are the slots of connections that have moved, by the low bits of their cookies.
type Placed map[uint64]int

// Placed returns where the latest connections that moved have gone, at most Moves of them. A
// connection that moves to the parking listener keeps its former entry.
func (g *Group) Placed() Placed {
	placed := make(Placed)
	n := g.state.word(offMoves).Load()
	for i := n - min(n, Moves); i < n; i++ {
		move := g.state.word(offMove + int(i%Moves)*8).Load()
		placed[move>>slotBits] = int(move & (Slots - 1))
	}
	return placed
}

// Slot returns the slot that a connection has moved to last, if that is known.
func (p Placed) Slot(cookie uint64) (slot int, known bool) {
	slot, known = p[cookie<<slotBits>>slotBits]
	return slot, known
}

func checkSlot(slot int) error {
	if slot < 0 || slot >= Slots {
		return fmt.Errorf("slot must be between 0 and %d, got %d", Slots-1, slot)
	}
	return nil
}
