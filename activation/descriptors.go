package activation

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Descriptors are what the service manager passed. It owns every descriptor that was not taken out
// of it, and Close closes those. Not safe for concurrent use.
type Descriptors struct {
	list   []*Descriptor
	absent error // why the list is empty
}

// All returns every descriptor in the order passed, those taken already included. Reading them
// takes nothing.
func (p *Descriptors) All() []*Descriptor {
	return slices.Clone(p.list)
}

// Named returns the descriptors of that name in the order passed, none if there are none: several
// Listen…= lines of one socket unit share one name, and a name may have been stored several times.
func (p *Descriptors) Named(name string) []*Descriptor {
	var found []*Descriptor
	for _, d := range p.list {
		if d.name == name {
			found = append(found, d)
		}
	}
	return found
}

// Listeners takes all descriptors of that name as listeners; the caller closes them. The name is
// FileDescriptorName= of the socket unit, by default the unit's name ("app.socket"). It fails with
// ErrNotPassed if there is none, and if one of them is not a listening socket; then it takes
// nothing.
//
// Package net sets O_NONBLOCK on the open file description, and so for all processes that share the
// socket. That is harmless if the service has NonBlocking=yes. If other programs share the socket
// with blocking accepts, use Take.
func (p *Descriptors) Listeners(name string) ([]net.Listener, error) {
	found, err := p.find("listener", name)
	if err != nil {
		return nil, err
	}
	return takeListeners(found)
}

// AllListeners is Listeners for all listening sockets, whatever their names. Descriptors that do
// not listen stay.
func (p *Descriptors) AllListeners() ([]net.Listener, error) {
	var found []*Descriptor
	for _, d := range p.list {
		if d.fd >= 0 && slices.Contains(listenerKinds(), d.kind) {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("find listeners: %w", p.notPassed())
	}
	return takeListeners(found)
}

// PacketConns takes out all descriptors of that name as packet connections (UDP, unixgram); the
// caller closes them. Errors and O_NONBLOCK are as with Listeners.
func (p *Descriptors) PacketConns(name string) ([]net.PacketConn, error) {
	found, err := p.find("packet connection", name)
	if err != nil {
		return nil, err
	}
	return takePacketConns(found)
}

// Close closes the descriptors that were not taken. Closing a passed socket does not close its
// socket unit, because PID 1 has the socket too.
func (p *Descriptors) Close() error {
	var errs []error
	for _, d := range p.list {
		if d.fd >= 0 {
			errs = append(errs, d.drop())
		}
	}
	return errors.Join(errs...)
}

func (p *Descriptors) find(what, name string) ([]*Descriptor, error) {
	found := p.Named(name)
	if len(found) == 0 {
		return nil, fmt.Errorf("find %s %q: %w", what, name, p.notPassed())
	}
	return found, nil
}

func (p *Descriptors) notPassed() error {
	if p.absent != nil {
		return p.absent
	}
	passed := make([]string, len(p.list))
	for i, d := range p.list {
		passed[i] = fmt.Sprintf("%q (%s)", d.name, d.kind)
	}
	return fmt.Errorf("%w: passed are %s", ErrNotPassed, strings.Join(passed, ", "))
}

// Descriptor is one passed descriptor, owned by its Descriptors until it is taken: by Take, File,
// Listener, PacketConn or Conn, whichever comes first. What is taken belongs to the caller. A
// failed attempt takes nothing. Not safe for concurrent use.
type Descriptor struct {
	name     string
	fd       int // -1: taken
	kind     Kind
	addr     net.Addr
	domain   int // of sockets
	protocol int // of sockets
}

// Name is FileDescriptorName= of the socket unit, or FDNAME= of a stored descriptor; "unknown" if
// the manager gave no names.
func (d *Descriptor) Name() string { return d.name }

// Kind says what the descriptor is.
func (d *Descriptor) Kind() Kind { return d.kind }

// Addr is the local address of a socket: *net.TCPAddr, *net.UDPAddr, *net.UnixAddr or, for raw
// sockets, *net.IPAddr. It is nil for files and for families without a type in package net.
// Addr().Network() is the network's name for net.Listen.
func (d *Descriptor) Addr() net.Addr { return d.addr }

// FD is the raw descriptor, only lent: do not close it. It is -1 once taken.
func (d *Descriptor) FD() int { return d.fd }

// Take takes the raw descriptor; the caller closes it. It keeps its number and is close-on-exec.
// Its open file description, which PID 1 and others share, is as it was: no flag is touched,
// O_NONBLOCK least of all.
func (d *Descriptor) Take() (int, error) {
	if d.fd < 0 {
		return -1, fmt.Errorf("take descriptor %q: already taken", d.name)
	}
	fd := d.fd
	d.fd = -1
	return fd, nil
}

// File takes the descriptor as a file; the caller closes it. O_NONBLOCK is left as it is.
func (d *Descriptor) File() (*os.File, error) {
	fd, err := d.Take()
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.name), nil
}

// Listener takes the descriptor as a listener: a *net.TCPListener or *net.UnixListener, which never
// unlinks its path. It fails if the descriptor is no listening socket, or of a family or protocol
// that package net cannot accept on. Package net sets O_NONBLOCK, see [Descriptors.Listeners], and
// TCP_NODELAY and keep-alive of every connection it accepts, whatever the socket unit's NoDelay=
// and KeepAlive= say.
func (d *Descriptor) Listener() (net.Listener, error) {
	taken, err := takeListeners([]*Descriptor{d})
	if err != nil {
		return nil, err
	}
	return taken[0], nil
}

// PacketConn takes the descriptor as a packet connection: a *net.UDPConn or *net.UnixConn. It fails
// if the descriptor is no datagram socket. Package net sets O_NONBLOCK, see
// [Descriptors.Listeners].
func (d *Descriptor) PacketConn() (net.PacketConn, error) {
	taken, err := takePacketConns([]*Descriptor{d})
	if err != nil {
		return nil, err
	}
	return taken[0], nil
}

// Conn takes the descriptor as a connection, as passed by Accept=yes or out of the store. It fails
// if the descriptor is not a connected stream or seqpacket socket. Package net sets O_NONBLOCK, see
// [Descriptors.Listeners].
func (d *Descriptor) Conn() (net.Conn, error) {
	kinds := []Kind{StreamConnection, SeqpacketConnection}
	taken, err := takeAll([]*Descriptor{d}, "connection", net.FileConn, kinds)
	if err != nil {
		return nil, err
	}
	return taken[0], nil
}

func (d *Descriptor) drop() error {
	err := unix.Close(d.fd)
	d.fd = -1
	return os.NewSyscallError("close", err)
}

func listenerKinds() []Kind {
	return []Kind{StreamListener, SeqpacketListener}
}

func takeListeners(from []*Descriptor) ([]net.Listener, error) {
	handed := make([]bool, len(from))
	for i, d := range from {
		handed[i] = d.name == HandoffName && d.kind == SeqpacketListener
	}
	taken, err := takeAll(from, "listener", net.FileListener, listenerKinds())
	for i := range taken {
		if incoming, ok := taken[i].(*net.UnixListener); ok && handed[i] {
			taken[i] = newHandoffListener(incoming)
		}
	}
	return taken, err
}

func takePacketConns(from []*Descriptor) ([]net.PacketConn, error) {
	return takeAll(from, "packet connection", net.FilePacketConn, []Kind{Datagram})
}

// takeAll converts all descriptors or none. Package net works on duplicates, so the originals are
// closed only when all is done.
func takeAll[T io.Closer](from []*Descriptor, what string, convert func(*os.File) (T, error), kinds []Kind) (taken []T, err error) {
	defer func() {
		if err != nil {
			for _, t := range taken {
				t.Close() // the error that led here matters more
			}
			taken = nil
		}
	}()
	for _, d := range from {
		if err := d.check(kinds); err != nil {
			return taken, fmt.Errorf("take %s %q: %w", what, d.name, err)
		}
		t, err := convertDup(d.fd, convert)
		if err != nil {
			return taken, fmt.Errorf("take %s %q: %w", what, d.name, err)
		}
		taken = append(taken, t)
	}
	for _, d := range from {
		if err := d.drop(); err != nil {
			return taken, fmt.Errorf("take %s %q: %w", what, d.name, err)
		}
	}
	return taken, nil
}

func (d *Descriptor) check(kinds []Kind) error {
	if d.fd < 0 {
		return errors.New("already taken")
	}
	if !slices.Contains(kinds, d.kind) {
		return fmt.Errorf("descriptor %d is a %s", d.fd, d.kind)
	}
	inet := d.domain == unix.AF_INET || d.domain == unix.AF_INET6
	stream := d.kind == StreamListener || d.kind == StreamConnection
	if inet && stream && d.protocol != unix.IPPROTO_TCP && d.protocol != unix.IPPROTO_MPTCP {
		return fmt.Errorf("descriptor %d speaks protocol %d, neither TCP nor MPTCP", d.fd, d.protocol)
	}
	return nil
}

// convertDup gives convert a duplicate of fd, because an *os.File closes what it was made of.
func convertDup[T any](fd int, convert func(*os.File) (T, error)) (T, error) {
	var none T
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return none, os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
	}
	file := os.NewFile(uintptr(dup), "passed")
	defer file.Close()
	return convert(file)
}
