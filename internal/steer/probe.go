package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Probe makes the next connection requests that come from source port go to a slot, on the ring or not, so that its
// instance can be tried before it gets real connections. There is one probe at a time: a second one replaces the first.
// EndProbe ends it.
//
// The port is all that tells a probe from others: bind it before, then no other client of this host has it. One on
// another host may, and would be the first real connection of an instance that is about to be ready.
func (g *Group) Probe(slot int, port uint16) error {
	if err := checkSlot(slot); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	// As the program reads it from the header, which is in network byte order.
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	g.state.word(offProbe).Store(uint64(slot)<<16 | uint64(binary.NativeEndian.Uint16(b[:])))
	g.state.word(offControl).Or(controlProbe)
	return nil
}

// EndProbe ends a Probe; the connection it made stays.
func (g *Group) EndProbe() error {
	g.state.word(offControl).And(^uint64(controlProbe))
	return nil
}

// Probe fails with errors.ErrUnsupported: a classic program knows no single connection.
func (c *Classic) Probe(int, uint16) error {
	return fmt.Errorf("probe: classic BPF: %w", errors.ErrUnsupported)
}

// EndProbe does nothing.
func (c *Classic) EndProbe() error { return nil }
