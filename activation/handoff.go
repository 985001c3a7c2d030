package activation

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff/tally"
	"github.com/unitgen/unitgen/internal/handoff/wire"
)

// HandoffName is the name (FileDescriptorName=) of a seqpacket listener on which a balancer hands
// over connections. Taken as a listener, such a descriptor yields those connections. The protocol
// is lbshim.protocol(7).
const HandoffName = "handoff"

// handoffListener is a net.Listener whose connections a balancer decides on. It has no goroutine:
// Accept reads the balancer's messages, so that a program that accepts nothing is ordered nothing.
//
// A connection costs what one from a listener of package net costs, and one message on its way in:
// it is not duplicated, looked into or registered twice, as with net.FileConn.
type handoffListener struct {
	incoming *net.UnixListener // where the balancer's channels come in

	accepting sync.Mutex // held by the one Accept that works; it owns the next three
	takes     take
	given     []given
	buffers   *channelBuffers

	mu      sync.Mutex
	channel *channel     // nil until one came in, or after the last ended
	tally   *tally.Tally // nil if the balancer has none
	public  []*publicListener
	closed  bool
	counts  wire.Report // without Busy and the flags
	open    map[*handedConn]*activity
}

// take is the rest of an order.
type take struct{ listener, count int }

// given is a connection that came as a descriptor, and that the balancer has not been told of.
type given struct {
	fd, listener int
	peer         wire.Peer
}

func newHandoffListener(incoming *net.UnixListener) *handoffListener {
	return &handoffListener{incoming: incoming, buffers: new(channelBuffers), open: make(map[*handedConn]*activity)}
}

// Accept returns the next connection that the balancer orders or gives.
func (l *handoffListener) Accept() (net.Conn, error) {
	l.accepting.Lock()
	defer l.accepting.Unlock()
	for {
		conn, err := l.step()
		if conn != nil {
			return conn, nil // also if it was just closed: nobody else has it
		}
		if l.isClosed() {
			l.refuse()
			return nil, &net.OpError{Op: "accept", Net: "unixpacket", Addr: l.incoming.Addr(), Err: net.ErrClosed}
		}
		if err != nil {
			return nil, err
		}
	}
}

// step does the next thing: nil and nil if it was none that makes a connection.
func (l *handoffListener) step() (net.Conn, error) {
	ch, err := l.currentChannel()
	switch {
	case err != nil:
		return nil, err
	case l.takes.count > 0:
		return l.accept(ch)
	case len(l.given) > 0:
		return l.receive(ch)
	}
	if err := l.read(ch); err != nil {
		// The balancer has left, or is none. Another may come.
		l.leave(ch)
	}
	return nil, nil
}

// currentChannel returns the balancer's channel; it waits for one if there is none.
func (l *handoffListener) currentChannel() (*channel, error) {
	l.mu.Lock()
	ch := l.channel
	l.mu.Unlock()
	if ch != nil {
		return ch, nil
	}
	conn, err := l.incoming.AcceptUnix()
	if err != nil {
		return nil, err
	}
	if ch, err = newChannel(conn); err != nil {
		conn.Close()
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		ch.close()
		return nil, net.ErrClosed
	}
	l.channel = ch
	return ch, nil
}

// leave closes a channel, with everything that arrived on it.
func (l *handoffListener) leave(ch *channel) {
	l.refuse()
	l.mu.Lock()
	defer l.mu.Unlock()
	ch.close()
	if l.channel == ch {
		l.channel = nil
	}
}

// refuse drops what the program has not been given. Connections that were ordered wait where they
// are, and of the others the balancer has a copy as long as it is not told.
func (l *handoffListener) refuse() {
	l.takes = take{}
	for _, g := range l.given {
		unix.Close(g.fd)
	}
	l.given = nil
}

// read reads one message.
func (l *handoffListener) read(ch *channel) error {
	m, fds, err := ch.read(l.buffers)
	if err != nil {
		return err
	}
	switch m.Kind {
	case wire.Listeners:
		return l.listeners(fds[:m.Count], fds[m.Count:])
	case wire.Ask:
		return ch.send(&l.mu, func(send func(wire.Message) error) error { return send(l.answerLocked(m.Token)) })
	}
	l.mu.Lock()
	known := m.Listener < len(l.public)
	l.mu.Unlock()
	if !known {
		closeDescriptors(fds)
		return errors.New("no such listener")
	}
	if m.Kind == wire.Take {
		l.takes = take{m.Listener, m.Count}
	}
	for i, fd := range fds {
		l.given = append(l.given, given{fd, m.Listener, m.Peers[i]})
	}
	return nil
}

// listeners takes over the public listeners, and the tally if there is one, in place of those that
// an earlier balancer sent.
func (l *handoffListener) listeners(fds, tallies []int) error {
	defer closeDescriptors(tallies)
	var public []*publicListener
	for i, fd := range fds {
		p, err := newPublicListener(fd)
		if err != nil {
			closeDescriptors(fds[i:])
			closePublic(public)
			return err
		}
		public = append(public, p)
	}
	var shared *tally.Tally
	if len(tallies) > 0 {
		var err error
		if shared, err = tally.Map(tallies[0]); err != nil {
			closePublic(public)
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	closePublic(l.public)
	if l.tally != nil {
		l.tally.Close()
	}
	l.public, l.tally = public, shared
	l.countLocked()
	return nil
}

// countLocked publishes the counts to the balancer. It reports whether the balancer wants a
// message.
func (l *handoffListener) countLocked() (tell bool) {
	if l.tally == nil {
		return true
	}
	return l.tally.Count(tally.Counts{Answered: l.counts.Answered, Missed: l.counts.Missed, Closed: l.counts.Closed})
}

// accept carries out one connection's worth of an order.
func (l *handoffListener) accept(ch *channel) (net.Conn, error) {
	l.mu.Lock()
	public, shared := l.public[l.takes.listener], l.tally
	l.mu.Unlock()
	l.takes.count--
	if shared != nil {
		shared.Accepting()
	}
	fd, peer, err := public.accept()
	l.mu.Lock()
	l.counts.Answered++
	if err != nil {
		l.counts.Missed++
	}
	tell := l.countLocked()
	l.mu.Unlock()
	if shared != nil {
		shared.Accepted()
	}
	if tell && l.tell(ch) != nil {
		l.leave(ch) // the connection is ours all the same: it came from the kernel
	}
	switch {
	case err == nil:
		return l.newConn(fd, public, peer), nil
	case errors.Is(err, unix.EAGAIN):
		return nil, nil // somebody else was quicker
	}
	return nil, &net.OpError{Op: "accept", Net: public.addr.Network(), Addr: public.addr, Err: err}
}

// receive returns a given connection, after reporting it to the balancer: from then on no other
// instance may get it. The tally counts the connection only after that, as the balancer then closes
// its copy.
func (l *handoffListener) receive(ch *channel) (net.Conn, error) {
	g := l.given[0]
	l.given = l.given[1:]
	var public *publicListener
	err := ch.send(&l.mu, func(send func(wire.Message) error) error {
		if l.closed {
			return net.ErrClosed // the balancer knows that it is not dealt with
		}
		public = l.public[g.listener]
		m := l.stateLocked()
		m.Report.Answered++
		if err := send(m); err != nil {
			return err
		}
		l.counts.Answered++
		l.countLocked()
		return nil
	})
	if err != nil {
		unix.Close(g.fd)
		if !l.isClosed() {
			l.leave(ch) // the balancer has ended it, and gives its copy to another instance
		}
		return nil, nil
	}
	return l.newConn(g.fd, public, peerAddr(g.peer)), nil
}

func (l *handoffListener) newConn(fd int, public *publicListener, peer net.Addr) *handedConn {
	conn := &handedConn{file: os.NewFile(uintptr(fd), "handed over"), listener: l, local: public.addr, remote: peer}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[conn] = new(activity)
	return conn
}

// ended counts a connection that the program has closed, and reports it to the balancer. If that is
// not possible now, the next message reports it.
func (l *handoffListener) ended(conn *handedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.open[conn]; !ok {
		return
	}
	delete(l.open, conn)
	l.counts.Closed++
	if tell := l.countLocked(); tell && l.channel != nil {
		_ = l.channel.trySend(l.stateLocked())
	}
}

// tell sends the state. If the balancer does not read now, a later message replaces this one.
func (l *handoffListener) tell(ch *channel) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := ch.trySend(l.stateLocked())
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	return err
}

func (l *handoffListener) stateLocked() wire.Message {
	r := l.counts
	r.Closing = l.closed
	return wire.Message{Kind: wire.State, Report: r}
}

// answerLocked is the answer to Ask.
func (l *handoffListener) answerLocked(token int) wire.Message {
	m := l.stateLocked()
	m.Token, m.Report.Answer, m.Report.Busy = token, true, l.busyLocked(time.Now())
	return m
}

// Close makes Accept fail, and tells the balancer that this process takes no more connections. Open
// connections continue. Connections that were ordered or given and not accepted go to other
// instances.
func (l *handoffListener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	err := l.incoming.Close()
	if l.channel != nil {
		_ = l.channel.trySend(l.stateLocked()) // if not, it sees the channel's end
		// The channel stays open, to report the end of the last connections.
		err = errors.Join(err, l.channel.interrupt())
	}
	l.mu.Unlock()
	l.accepting.Lock()
	defer l.accepting.Unlock()
	l.refuse()
	l.mu.Lock()
	defer l.mu.Unlock()
	closePublic(l.public)
	l.public = nil
	return err
}

func (l *handoffListener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Addr is the app's first public address. Before the balancer has sent it, Addr is the address of
// the descriptor.
func (l *handoffListener) Addr() net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.public) == 0 {
		return l.incoming.Addr()
	}
	return l.public[0].addr
}

func closeDescriptors(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
