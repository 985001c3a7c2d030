package steer

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Slots is the maximum number of listeners of one address: slot 0 is the parking listener, slot i
// is instance i.
const Slots = 1024

// Parking is the slot of the listener that takes a connection when no instance may.
const Parking = 0

// MaxRing is the longest ring: half of the ring area, so that a new ring is written beside the one
// in use.
const MaxRing = 4096

// Moves is how many of the latest moves of connections are remembered, 8 bytes each: as many as
// wait at a listener at most (net.core.somaxconn is 4096 by default).
const Moves = 4096

// slotBits are those of a slot. A cookie has more bits than are left, but counts up from zero or
// down from the highest number (gen_cookie_next in include/linux/cookie.h).
const slotBits = 10

// The state map is an array of one value that user space maps into its memory; the program reads it
// at fixed offsets. A change to anything here needs a new layoutVersion: a newer shim must not
// adopt what it would misread.
const (
	layoutVersion uint64 = 0x756e6974_00000002 // "unit", then the version

	offVersion  = 0
	offControl  = 64  // the control word, on a cache line of its own: read for each connection, written seldom
	offCounter  = 128 // picks so far; written for each connection
	offPassed   = 192 // left to the kernel's hash, as not even the parking listener was there
	offRefused  = 200 // refused because the group is closed
	offMigrated = 208 // moved here from a listener that went away; also counted as steered
	offProbe    = 216 // a connection request from the port in the low half goes to the slot above it; see controlProbe
	offMoves    = 224 // entries of the log of moves so far
	offRing     = 1024
	offSteered  = offRing + 2*MaxRing*ringEntry // connections given to each slot
	offOpen     = offSteered + Slots*8          // open connections of each slot, by the counting program
	offReserved = offOpen + Slots*8             // picked, handshake not complete: window in the high half, count in the low
	offMove     = offReserved + Slots*8         // the latest moves: cookie, and the slot in the low bits
	stateSize   = offMove + Moves*8

	ringEntry   = 4  // bytes: slot in the low half, weight in the high half
	weightShift = 16 // zero and one are the same weight
)

// The control word holds all that has to change at once: which entries are the ring (offset,
// length), and flags.
const (
	controlMask   = 1<<16 - 1 // first entry of the ring: 0 or MaxRing
	controlLength = 16        // shift of the length, as wide
	controlClosed = 1 << 32
	controlProbe  = 1 << 33 // the probe word counts
)

// state is the state map in our memory. It owns the mapping, not the map's descriptor.
type state struct{ mem []byte }

// openState maps the state map behind fd and does not change its contents. The caller keeps fd.
func openState(fd int) (*state, error) {
	page := unix.Getpagesize()
	size := (stateSize + page - 1) / page * page
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mmap state map: %w", err)
	}
	return &state{mem: mem}, nil
}

func (s *state) close() error {
	mem := s.mem
	s.mem = nil
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("munmap state map: %w", err)
	}
	return nil
}

// word returns the 8 bytes at an offset that is a multiple of 8, for atomic use: the kernel changes
// them at any time.
func (s *state) word(offset int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&s.mem[offset]))
}

// entry returns one entry of the ring area, which holds two rings.
func (s *state) entry(i int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&s.mem[offRing+i*ringEntry]))
}

// ring returns the entries in use.
func (s *state) ring() []uint32 {
	control := s.word(offControl).Load()
	start := int(control & controlMask)
	entries := make([]uint32, control>>controlLength&controlMask)
	for i := range entries {
		entries[i] = s.entry(start + i).Load()
	}
	return entries
}

// setRing writes entries beside the ring in use and makes them the ring with one store, which is a
// release: a program that sees the new control word sees the new entries. One that had read the old
// word may pick once more from the old ring.
func (s *state) setRing(entries []uint32) {
	control := s.word(offControl).Load()
	start := uint64(0)
	if control&controlMask == 0 {
		start = MaxRing
	}
	for i, e := range entries {
		s.entry(int(start) + i).Store(e)
	}
	s.word(offControl).Store(control&(controlClosed|controlProbe) | uint64(len(entries))<<controlLength | start)
}
