package handoff

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff/receiver"
	"github.com/unitgen/unitgen/internal/handoff/tally"
	"github.com/unitgen/unitgen/internal/handoff/wire"
)

// maxPending bounds the unanswered orders of an instance. With more, connections would wait there
// while another instance could accept them. With fewer, a program that accepts in bursts would ask
// often.
const maxPending = 64

// maxGiven bounds the connections given and not answered: they are lost to others while an instance
// hangs.
const maxGiven = 16

// backend is an instance. It owns the descriptor of its channel.
type backend struct {
	id, fd   int
	attached uint32
	receiver receiver.Receiver // nil if it speaks as package wire has it
	tally    *tally.Tally      // nil for a receiver, or if there can be none
	token    int               // of its Asks: answers to an earlier balancer have another
	ready    bool              // it has answered the first Ask
	full     bool              // its channel takes no more until it has read
	resting  bool              // it has refused a connection just now
	report   wire.Report
	busy     int
	asked    int
	orders   []order // not answered, oldest first
	pending  int     // connections in orders and batch
	batch    int     // picked, and not sent yet
	gives    []connection
}

// order is what one message asked for.
type order struct {
	listener, count int
	at              time.Time
	given           []connection // of Give: the copies, for the case that it does not answer
	number          uint64       // of a receiver's
}

// Attach gives an instance its channel, in place of the one it had, and sends the listeners. Attach
// owns channel, also when it fails. A channel from an earlier balancer keeps its state.
func (d *Dispatcher) Attach(id, channel int) (err error) {
	if err = prepare(channel); err != nil {
		unix.Close(channel)
		return fmt.Errorf("attach instance %d: %w", id, err)
	}
	d.locked(func() {
		if old := d.backends[id]; old != nil {
			d.dropLocked(old)
		}
		d.attached++
		b := &backend{id: id, fd: channel, attached: d.attached, token: rand.IntN(1 << 16)}
		d.backends[id] = b
		if err = watch(d.epoll, unix.EPOLL_CTL_ADD, channel, unix.EPOLLIN, id, b.attached); err == nil {
			err = d.greet(b)
		}
		if err != nil {
			d.dropLocked(b)
			err = fmt.Errorf("attach instance %d: %w", id, err)
		}
		d.dispatchAllLocked()
	})
	return err
}

// prepare checks that a descriptor is a channel. Any other descriptor could make the loop wait.
func prepare(channel int) error {
	for option, want := range map[int]int{unix.SO_DOMAIN: unix.AF_UNIX, unix.SO_TYPE: unix.SOCK_SEQPACKET, unix.SO_ACCEPTCONN: 0} {
		got, err := unix.GetsockoptInt(channel, unix.SOL_SOCKET, option)
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		if got != want {
			return errors.New("not a connected unix socket of type seqpacket")
		}
	}
	unix.CloseOnExec(channel)
	return os.NewSyscallError("fcntl", unix.SetNonblock(channel, true))
}

// greet sends the listeners and asks for the instance's state. Nothing else is sent until the
// instance answers: orders of an earlier balancer may still be under way.
func (d *Dispatcher) greet(b *backend) error {
	fds := d.options.Listeners
	t, fd, err := tally.New()
	if err != nil {
		d.options.Log.Warn("instance reports each connection by a message", "instance", b.id, "error", err)
	} else {
		defer unix.Close(fd)
		b.tally, fds = t, append(slices.Clone(fds), fd)
	}
	if err := send(b.fd, wire.Message{Kind: wire.Listeners, Count: len(d.options.Listeners)}, fds); err != nil {
		return err
	}
	return send(b.fd, wire.Message{Kind: wire.Ask, Token: b.token}, nil)
}

// Detach ends an instance's channel. Connections that were given to the instance and that it has
// not answered go to others.
func (d *Dispatcher) Detach(id int) {
	d.locked(func() {
		if b := d.backends[id]; b != nil {
			d.dropLocked(b)
			d.dispatchAllLocked()
		}
	})
}

// dropLocked forgets a backend whose channel is of no more use.
func (d *Dispatcher) dropLocked(b *backend) {
	delete(d.backends, b.id)
	d.strandLocked(b)
	d.closeChannel(b)
	d.changed = true
}

func (d *Dispatcher) closeChannel(b *backend) {
	if b.tally != nil {
		b.tally.Close()
	}
	if b.receiver != nil {
		// The FD store of PID 1 also holds the channel, and an open file stays in the epoll set.
		// The call fails if the channel was not added yet.
		_ = unix.EpollCtl(d.channels, unix.EPOLL_CTL_DEL, b.fd, nil)
	}
	unix.Close(b.fd)
}

// strandLocked takes back the connections that a backend will not handle.
func (d *Dispatcher) strandLocked(b *backend) {
	for _, o := range b.orders {
		d.stranded = append(d.stranded, o.given...)
	}
	d.stranded = append(d.stranded, b.gives...)
	b.orders, b.gives, b.pending, b.batch = nil, nil, 0, 0
}

// hearLocked reads all messages of a backend.
func (d *Dispatcher) hearLocked(b *backend) {
	answered := false
	for {
		m, err := hear(b.fd)
		switch {
		case errors.Is(err, unix.EAGAIN):
			if answered {
				d.dispatchBehindLocked()
			}
			return
		case err == nil:
			err = d.reportedLocked(b, m)
			answered = true
		}
		if err != nil {
			if !errors.Is(err, errEnded) {
				d.options.Log.Warn("instance gets no more connections", "instance", b.id, "error", err)
			}
			d.dropLocked(b)
			d.dispatchAllLocked()
			return
		}
	}
}

// reportedLocked processes a report. An impossible report is an error.
func (d *Dispatcher) reportedLocked(b *backend, m wire.Message) error {
	r, answer := m.Report, m.Report.Answer && m.Token == b.token
	news := answer && !b.ready || r.Closing && !b.report.Closing
	switch {
	case b.ready:
		if err := b.count(b.counts(r)); err != nil {
			return err
		}
		b.report.Closing = r.Closing
	case answer || r.Closing:
		b.report = r
	default:
		return nil // what it has to say to an earlier balancer
	}
	b.full = false
	if answer {
		b.ready, b.busy, b.asked = true, int(r.Busy), b.asked+1
		d.changed = true
	}
	if r.Closing {
		d.strandLocked(b)
		d.changed = true
	}
	if news {
		d.dispatchAllLocked()
	}
	return nil
}

// count records how many connections the instance has handled. Impossible numbers are an error.
func (b *backend) count(c tally.Counts) error {
	done := c.Answered - b.report.Answered
	if c.Answered < b.report.Answered || c.Missed < b.report.Missed || c.Closed < b.report.Closed ||
		c.Missed > c.Answered || c.Closed > c.Answered-c.Missed {
		return errors.New("it counts wrongly")
	}
	if done > uint64(b.pending) && !b.report.Closing { // what it was just accepting when it closed was ordered
		return errors.New("it answered what it was not asked")
	}
	b.full = b.full && done == 0
	b.report.Answered, b.report.Missed, b.report.Closed = c.Answered, c.Missed, c.Closed
	b.answer(min(int(done), b.pending))
	return nil
}

// answer removes the first n connections from the orders, and closes the copies of them.
func (b *backend) answer(n int) {
	b.pending -= n
	for n > 0 {
		o := &b.orders[0]
		done := min(n, o.count)
		if o.given != nil {
			closeAll(o.given[:done])
			o.given = o.given[done:]
		}
		o.count -= done
		n -= done
		if o.count == 0 {
			b.orders = b.orders[1:]
		}
	}
}

// ordered returns how many connections of listener i the backend has to accept and has not
// answered.
func (b *backend) ordered(i int) (n int) {
	for _, o := range b.orders {
		if o.listener == i && o.given == nil {
			n += o.count
		}
	}
	return n
}
