// Package wire is the protocol between a balancer and an instance on the handoff path: small
// messages on a unix socket of type SOCK_SEQPACKET, some with descriptors (SCM_RIGHTS).
// lbshim.protocol(7) describes it.
//
// The package encodes and parses, and does no I/O. Both ends treat the other as hostile: a message
// that does not parse ends the connection.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Version is the first byte of every message. It changes when an end that supports only the old
// version could misread a message.
const Version = 1

// Kind is the type of a message.
type Kind uint8

// From the balancer.
const (
	// Listeners carries duplicates of the app's public listeners, one to MaxListeners, numbered
	// from 0 by their order. The descriptor of a tally (package tally) may follow. It is the first
	// message, and a balancer that has taken over sends it again.
	Listeners Kind = 1
	// Ask requests State, with Busy and the same Token. The token tells the answer from a State
	// that was sent to an earlier balancer.
	Ask Kind = 2
	// Take orders the instance to accept Count connections of the public listener with number
	// Listener.
	Take Kind = 3
	// Give carries Count accepted connections of that listener, with their peers.
	Give Kind = 4
)

// From the instance.
const (
	// State reports what has happened to the connections so far.
	State Kind = 16
)

const (
	// MaxListeners bounds the public listeners of an app.
	MaxListeners = 64
	// MaxGive bounds the connections in one Give: the number of accept4(2) calls in one batch. The
	// kernel accepts at most 253 descriptors in a message.
	MaxGive = 32
	// MaxTake bounds Count of Take.
	MaxTake = 1024
	// MaxSize is the size of the largest message.
	MaxSize = headerSize + MaxGive*peerSize

	headerSize = 8  // version, kind, listener or token (2), count or flags (4)
	peerSize   = 24 // family, zero, port (2), scope (4), address (16)
	stateSize  = 32
)

// Flags of State, in the place of Count.
const (
	flagClosing  = 1 << 0
	flagAnswer   = 1 << 1
	allowedFlags = flagClosing | flagAnswer
)

// Message is one message of either end. Fields that its Kind does not have are zero.
type Message struct {
	Kind     Kind
	Listener int    // of Take and Give
	Token    int    // of Ask, 0 to 65535; of the State that answers it, the same
	Count    int    // of Listeners, Take, Give
	Peers    []Peer // of Give: Count of them
	Report   Report // of State
}

// Peer is the address of the other end of a connection. The zero Peer is the peer of a unix socket,
// which has no address.
type Peer struct {
	Address netip.Addr // without a zone
	Port    uint16
	Scope   uint32 // index of the interface of a link-local address
}

// Report is the instance's report of its connections. All counts except Busy only grow, so the next
// report makes up for a lost one.
type Report struct {
	Answered uint64 // connections ordered or given that it has dealt with, in the order in which they came
	Missed   uint64 // of Answered: ordered, but there was none any more
	Closed   uint64 // of the rest: closed by the program
	Busy     uint64 // of those open: in the middle of something. Only where Answer is set
	Answer   bool   // this answers Ask
	Closing  bool   // it takes no more: what came after Answered is not dealt with, and never will be
}

// Open is the number of connections that the program has open.
func (r Report) Open() int { return int(r.Answered - r.Missed - r.Closed) }

// check returns an error if the numbers of a report are impossible.
func (r Report) check() error {
	const most = 1 << 62
	if r.Answered > most || r.Missed > r.Answered || r.Closed > r.Answered-r.Missed || r.Busy > r.Answered-r.Missed-r.Closed {
		return errors.New("its counts contradict each other")
	}
	if r.Busy > 0 && !r.Answer {
		return errors.New("it tells of busy connections unasked")
	}
	return nil
}

// Append appends the encoding of m to b. m must be a message that the other end would accept.
func Append(b []byte, m Message) []byte {
	count := uint32(m.Count)
	if m.Kind == State {
		count = m.Report.flags()
	}
	b = append(b, Version, byte(m.Kind))
	b = binary.LittleEndian.AppendUint16(b, uint16(m.Listener|m.Token)) // no message has both
	b = binary.LittleEndian.AppendUint32(b, count)
	if m.Kind == State {
		for _, n := range []uint64{m.Report.Answered, m.Report.Missed, m.Report.Closed, m.Report.Busy} {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
	}
	for _, p := range m.Peers {
		b = p.append(b)
	}
	return b
}

func (r Report) flags() (flags uint32) {
	if r.Closing {
		flags |= flagClosing
	}
	if r.Answer {
		flags |= flagAnswer
	}
	return flags
}

// Families of peers, in the first byte.
const (
	familyUnix = 0
	familyIPv4 = 4
	familyIPv6 = 6
)

func (p Peer) append(b []byte) []byte {
	var family byte
	var address [16]byte
	switch {
	case p.Address.Is4():
		family = familyIPv4
		a := p.Address.As4()
		copy(address[:], a[:])
	case p.Address.IsValid():
		family = familyIPv6
		address = p.Address.As16()
	}
	b = append(b, family, 0)
	b = binary.LittleEndian.AppendUint16(b, p.Port)
	b = binary.LittleEndian.AppendUint32(b, p.Scope)
	return append(b, address[:]...)
}

// FromBalancer parses a message that came with fds descriptors from the balancer's end.
func FromBalancer(b []byte, fds int) (Message, error) {
	m, body, err := parseHeader(b)
	if err != nil {
		return Message{}, err
	}
	want := 0
	switch m.Kind {
	case Listeners:
		want, err = max(m.Count, min(fds, m.Count+1)), m.within(1, MaxListeners)
	case Ask:
		m.Token, m.Listener = m.Listener, 0
		err = m.within(0, 0)
	case Take:
		err = m.within(1, MaxTake)
	case Give:
		want = m.Count
		if err = m.within(1, MaxGive); err == nil {
			m.Peers, body, err = parsePeers(body, m.Count)
		}
	default:
		err = errors.New("unknown kind")
	}
	switch {
	case err != nil:
	case m.Listener >= MaxListeners || m.Listener > 0 && m.Kind == Listeners:
		err = fmt.Errorf("listener %d", m.Listener)
	case len(body) > 0:
		err = fmt.Errorf("%d bytes too many", len(body))
	case fds != want:
		err = fmt.Errorf("%d descriptors, want %d", fds, want)
	}
	if err != nil {
		return Message{}, fmt.Errorf("parse message of kind %d: %w", m.Kind, err)
	}
	return m, nil
}

// FromInstance parses a message of the instance's end, which never has descriptors.
func FromInstance(b []byte) (Message, error) {
	m, body, err := parseHeader(b)
	if err != nil {
		return Message{}, err
	}
	switch {
	case m.Kind != State:
		err = errors.New("unknown kind")
	case m.Count&^allowedFlags != 0:
		err = errors.New("unknown flags")
	case m.Listener != 0 && m.Count&flagAnswer == 0:
		err = errors.New("token of no answer")
	case len(body) != stateSize:
		err = fmt.Errorf("%d bytes, want %d", len(body), stateSize)
	default:
		m.Report = Report{
			Answered: binary.LittleEndian.Uint64(body), Missed: binary.LittleEndian.Uint64(body[8:]),
			Closed: binary.LittleEndian.Uint64(body[16:]), Busy: binary.LittleEndian.Uint64(body[24:]),
			Answer: m.Count&flagAnswer != 0, Closing: m.Count&flagClosing != 0,
		}
		m.Token, m.Listener, m.Count = m.Listener, 0, 0
		err = m.Report.check()
	}
	if err != nil {
		return Message{}, fmt.Errorf("parse message of kind %d: %w", m.Kind, err)
	}
	return m, nil
}

func parseHeader(b []byte) (m Message, body []byte, err error) {
	if len(b) < headerSize {
		return m, nil, fmt.Errorf("parse message: %d bytes, want at least %d", len(b), headerSize)
	}
	if b[0] != Version {
		return m, nil, fmt.Errorf("parse message: version %d, want %d", b[0], Version)
	}
	m = Message{Kind: Kind(b[1]), Listener: int(binary.LittleEndian.Uint16(b[2:])), Count: int(binary.LittleEndian.Uint32(b[4:]))}
	return m, b[headerSize:], nil
}

func (m Message) within(least, most int) error {
	if m.Count < least || m.Count > most {
		return fmt.Errorf("count is %d, want %d to %d", m.Count, least, most)
	}
	return nil
}

func parsePeers(b []byte, count int) (peers []Peer, rest []byte, err error) {
	if len(b) < count*peerSize {
		return nil, b, fmt.Errorf("%d bytes for %d peers", len(b), count)
	}
	peers = make([]Peer, count)
	for i := range peers {
		if peers[i], err = parsePeer(b[i*peerSize:]); err != nil {
			return nil, b, err
		}
	}
	return peers, b[count*peerSize:], nil
}

func parsePeer(b []byte) (p Peer, err error) {
	p.Port, p.Scope = binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
	address := [16]byte(b[8:peerSize])
	switch b[0] {
	case familyUnix:
		if p.Port != 0 || p.Scope != 0 || address != [16]byte{} {
			return p, errors.New("peer without a family has an address")
		}
	case familyIPv4:
		p.Address = netip.AddrFrom4([4]byte(address[:4]))
		if p.Scope != 0 || [12]byte(address[4:]) != [12]byte{} {
			return p, errors.New("IPv4 peer has more than an address")
		}
	case familyIPv6:
		p.Address = netip.AddrFrom16(address)
	default:
		return p, fmt.Errorf("peer of family %d", b[0])
	}
	if b[1] != 0 {
		return p, errors.New("peer is not padded with zero")
	}
	return p, nil
}
