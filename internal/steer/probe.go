package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Probe steers the next connection requests from source port to a slot, on the ring or not, to try
// an instance before it gets real connections. There is one probe at a time: a second one replaces
// the first. EndProbe ends the probe.
//
// Only the port tells a probe from other connections. Bind the port first, so that no other client
// of this host has it. A client on another host may have the same port, and would be the first real
// connection of an instance that is about to be ready.
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

// EndProbe ends a Probe; the connection of the probe stays.
func (g *Group) EndProbe() error {
	g.state.word(offControl).And(^uint64(controlProbe))
	return nil
}

// Probe fails with errors.ErrUnsupported: a classic program cannot steer a single connection.
func (c *Classic) Probe(int, uint16) error {
	return fmt.Errorf("probe: classic BPF: %w", errors.ErrUnsupported)
}

// EndProbe does nothing.
func (c *Classic) EndProbe() error { return nil }
