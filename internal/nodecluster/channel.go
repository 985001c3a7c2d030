package nodecluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// sendLimit bounds the sending of one line. A stopped worker has room for some hundred lines in its
// socket. A worker that leaves a full socket unread for this long loses its channel.
const sendLimit = 30 * time.Second

// queued is how many replies wait to be sent; then the worker's messages are read no further.
const queued = 8

// Channel moves lines and connections between the primary and one worker. One goroutine at a time
// may call Read or Hear, and one other Send. Any goroutine may call Order, Post and Hand.
type Channel struct {
	socket
	arrivals *net.UnixConn // what Read waits with; nil before
	lines    lines
	out      chan Reply
	orders   chan Reply
	ended    chan struct{} // closed by Write at its end
	seq      atomic.Uint64

	open     context.Context // until Close
	cancel   context.CancelFunc
	writing  sync.Mutex // a line is being written
	payloads payloads
}

// NewChannel makes a channel of a unix stream socket, and owns it from then on, also when it fails.
// firstSeq is the number of the first message to the worker: a primary that takes over counts on
// beyond what the one before it may have used, so that a late answer to that one is not taken for
// its own.
func NewChannel(fd int, firstSeq uint64) (*Channel, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err == nil && kind != unix.AF_UNIX {
		err = errors.New("not a unix socket")
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open channel: %w", err)
	}
	c := &Channel{
		socket: socket{fd: fd}, out: make(chan Reply, queued), orders: make(chan Reply, maxOrders), ended: make(chan struct{}),
		payloads: payloads{queue: make(chan Payload, maxPayloads), sent: make(chan struct{}, 1)},
	}
	c.open, c.cancel = context.WithCancel(context.Background())
	c.seq.Store(firstSeq)
	return c, nil
}

// Close ends the channel here; Read and Write return. The worker sees its end when the last
// duplicate is closed.
func (c *Channel) Close() error {
	c.cancel()
	return c.socket.Close()
}

// Closed is closed by Close.
func (c *Channel) Closed() <-chan struct{} { return c.open.Done() }

// Descriptor calls f with the channel's descriptor, which is borrowed; f must not wait.
func (c *Channel) Descriptor(f func(fd int) error) error { return c.use(f) }

// Read waits for the next line for the primary. It skips other lines of the program. The error is
// io.EOF when the worker has closed the channel. A line that Node does not send is an error too, a
// *BadLineError; the caller may continue to read.
func (c *Channel) Read() (m Message, err error) {
	for {
		got := false
		if more := c.Hear(func(heard Message, heardErr error) bool {
			if got {
				return false
			}
			m, err, got = heard, heardErr, true
			return true
		}); got {
			return m, err
		} else if more {
			continue
		}
		if err := c.awaitArrival(); err != nil {
			return Message{}, err
		}
	}
}

// maxReads bounds the reads of one Hear, because others wait while it parses.
const maxReads = 16

// Hear reads the lines that have arrived, and never waits. It calls take with the result that Read
// would return. If take has no room and returns false, the next Hear calls it with the same result.
// More means that lines may be left without an event of epoll.
func (c *Channel) Hear(take func(Message, error) bool) (more bool) {
	for range maxReads {
		for {
			line, ok := c.lines.next()
			if !ok {
				break
			}
			m, err := Parse(line)
			if err != nil {
				err = &BadLineError{err}
			}
			if (err != nil || m.Kind != User && m.Kind != Unknown) && !take(m, err) {
				c.lines.putBack()
				return false
			}
		}
		n, err := c.read(c.lines.space())
		if errors.Is(err, unix.EAGAIN) {
			return false
		}
		if err != nil {
			take(Message{}, err)
			return false
		}
		c.lines.add(n)
	}
	return true
}

// BadLineError is a line that is not of the protocol.
type BadLineError struct{ err error }

func (b *BadLineError) Error() string { return b.err.Error() }
func (b *BadLineError) Unwrap() error { return b.err }

// awaitArrival returns when there is something to read.
func (c *Channel) awaitArrival() error {
	if c.arrivals == nil {
		arrivals, err := c.duplicate()
		if err != nil {
			return err
		}
		c.arrivals = arrivals
		context.AfterFunc(c.open, func() { arrivals.Close() })
	}
	raw, err := c.arrivals.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool { return polls(int(fd), unix.POLLIN) })
}

// Send hands a reply to Write and waits while too many others do; false if Write has ended.
func (c *Channel) Send(r Reply) bool {
	select {
	case c.out <- r:
		return true
	case <-c.ended:
		return false
	}
}

// maxOrders is the maximum number of orders that wait to be sent. Each drain queues one or two, and
// an abandoned drain another.
const maxOrders = 8

// Order queues a message that answers nothing, Disconnect or LetGo, for Write. It never waits, and
// returns false if there is no room.
func (c *Channel) Order(r Reply) bool {
	select {
	case c.orders <- r:
		return true
	default:
		return false
	}
}

// Write sends what Send and Order hand it until done is closed or sending fails. Whoever runs it
// waits for its end.
func (c *Channel) Write(done <-chan struct{}) error {
	defer close(c.ended)
	for {
		var r Reply
		select {
		case r = <-c.orders:
		case r = <-c.out:
		case <-done:
			return nil
		}
		if err := c.reply(r); err != nil {
			return fmt.Errorf("send to worker: %w", err)
		}
	}
}

func (c *Channel) reply(r Reply) error {
	line, err := json.Marshal(r.build(c.seq.Add(1) - 1))
	if err != nil {
		return err
	}
	return c.write(append(line, '\n'))
}

// write sends a line as a whole.
func (c *Channel) write(line []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	ctx, cancel := context.WithTimeout(c.open, sendLimit)
	defer cancel()
	for len(line) > 0 {
		n, err := c.send(line, -1)
		switch {
		case errors.Is(err, unix.EAGAIN):
			err = c.awaitRoom(ctx)
		case err == nil:
			line = line[n:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// awaitRoom returns when there is room for a line, or ctx ends. A wait on the channel's descriptor
// would delay writers.
func (c *Channel) awaitRoom(ctx context.Context) error {
	var room bool
	if err := c.use(func(fd int) error { room = polls(fd, unix.POLLOUT); return nil }); room || err != nil {
		return err
	}
	conn, err := c.duplicate()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Write(func(fd uintptr) bool { return polls(int(fd), unix.POLLOUT) })
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
