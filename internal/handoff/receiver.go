package handoff

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff/wire"
)

// Receiver is an instance that is given its connections by a protocol of its own, not that of package wire: it cannot
// accept by itself. Its methods are called with the Dispatcher's state locked: they neither block nor call it.
type Receiver interface {
	// Give sends a connection of a listener. The descriptor stays the Dispatcher's until a Said names the number. It is
	// false if the receiver has no room now.
	Give(listener, fd int) (number uint64, ok bool)
	// Ask has the receiver tell what it has, in a report with the same token.
	Ask(token int)
	// Hear reads what has come on the receiver's channel and appends what the receiver says. More says that it has not read
	// all that it could.
	Hear(said []Said) (all []Said, more bool)
	// Descriptor calls f with the channel's descriptor, which is borrowed.
	Descriptor(f func(fd int) error) error
}

// Said is a word of a Receiver's: of one connection, that it has taken it or that it must go to another; or a report of how
// many it has open, and how many of them are in the middle of something.
type Said struct {
	Number uint64
	Taken  bool

	Report            bool
	Token, Open, Busy int
}

// maxUnanswered bounds the connections that a Receiver has not answered: its event loop is behind by as many.
const maxUnanswered = 4

// restTime is how long a Receiver gets nothing after it has refused a connection, or had no room for one, unless it says
// something before.
const restTime = 100 * time.Millisecond

// AttachReceiver adds an instance that is given its connections, in place of the one with that number. One that has been
// given some by an earlier balancer is not fresh: it gets none until it has answered the first Ask, as what it answers
// before is not for this one. It takes connections from Serving on. From now on the Dispatcher hears it.
func (d *Dispatcher) AttachReceiver(id int, r Receiver, fresh bool) error {
	// One of its own: it is watched until this is closed, whoever else has the channel, and whoever closes it.
	channel := -1
	err := r.Descriptor(func(fd int) (err error) {
		channel, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewSyscallError("fcntl", err)
	})
	if err != nil {
		return fmt.Errorf("attach instance %d: %w", id, err)
	}
	d.locked(func() {
		if old := d.backends[id]; old != nil {
			d.dropLocked(old)
		}
		d.attached++
		b := &backend{id: id, fd: channel, attached: d.attached, receiver: r, token: 1 + rand.IntN(1<<16-1), ready: fresh}
		b.report.Closing = true
		d.backends[id] = b
		if err = watch(d.channels, unix.EPOLL_CTL_ADD, channel, unix.EPOLLIN|unix.EPOLLET, id, b.attached); err != nil {
			err = fmt.Errorf("attach instance %d: %w", id, err)
			d.dropLocked(b)
		} else if !fresh {
			r.Ask(b.token)
		}
		d.dispatchAllLocked() // what the one before has not answered
	})
	return err
}

// ofLocked returns the backend of a receiver, nil if another has its place.
func (d *Dispatcher) ofLocked(id int, r Receiver) *backend {
	if b := d.backends[id]; b != nil && b.receiver == r {
		return b
	}
	return nil
}

// Serving says whether a receiver takes connections. What it has been given it still answers.
func (d *Dispatcher) Serving(id int, r Receiver, serving bool) {
	d.locked(func() {
		if b := d.ofLocked(id, r); b != nil && b.report.Closing == serving {
			b.report.Closing = !serving
			d.changed = true
			d.dispatchAllLocked()
		}
	})
}

// Hear hears a receiver that had no room for what it was told.
func (d *Dispatcher) Hear(id int, r Receiver) {
	d.locked(func() {
		if b := d.ofLocked(id, r); b != nil {
			d.hearReceiverLocked(b)
		}
	})
}

func (d *Dispatcher) hearReceiverLocked(b *backend) {
	said, more := b.receiver.Hear(d.said[:0])
	d.said = said
	for _, s := range said {
		if s.Report {
			d.receiverReportsLocked(b, s)
		} else {
			d.receiverAnswersLocked(b, s)
		}
	}
	if more { // the next epoll_wait(2) tells of what there is to read now
		if err := watch(d.channels, unix.EPOLL_CTL_MOD, b.fd, unix.EPOLLIN|unix.EPOLLET, b.id, b.attached); err != nil {
			d.options.Log.Error("hear instance, ignoring", "instance", b.id, "error", err)
		}
	}
	if len(said) > 0 {
		d.dispatchBehindLocked()
	}
}

func (d *Dispatcher) receiverAnswersLocked(b *backend, s Said) {
	c, ok := b.withdraw(s.Number)
	switch {
	case !ok: // given by an earlier balancer
	case s.Taken:
		unix.Close(c.fd)
		b.report.Answered++
		b.full = false
	default:
		d.stranded = append(d.stranded, c)
		b.resting = true
		d.wakeLater(b)
	}
}

func (d *Dispatcher) receiverReportsLocked(b *backend, s Said) {
	if !b.ready && s.Token != b.token {
		return // for an earlier balancer
	}
	// What it has taken so far it has answered before.
	b.report = wire.Report{Answered: uint64(s.Open), Closing: b.report.Closing}
	b.busy, b.full, b.resting = s.Busy, false, false
	if s.Token == b.token {
		b.ready, b.asked = true, b.asked+1
		d.changed = true
	}
}

// withdraw takes the connection of that number off the orders.
func (b *backend) withdraw(number uint64) (connection, bool) {
	for i, o := range b.orders {
		if o.number == number {
			b.orders = append(b.orders[:i], b.orders[i+1:]...)
			b.pending--
			return o.given[0], true
		}
	}
	return connection{}, false
}

// wakeLater ends the rest of a backend.
func (d *Dispatcher) wakeLater(b *backend) {
	time.AfterFunc(restTime, func() {
		d.locked(func() {
			if d.backends[b.id] == b {
				b.full, b.resting = false, false
				d.dispatchAllLocked()
			}
		})
	})
}

// giveToReceiverLocked gives one connection.
func (d *Dispatcher) giveToReceiverLocked(b *backend, c connection) bool {
	number, ok := b.receiver.Give(c.listener, c.fd)
	if !ok {
		b.full = true
		d.wakeLater(b)
		return false
	}
	b.orders = append(b.orders, order{listener: c.listener, count: 1, at: time.Now(), given: []connection{c}, number: number})
	d.given[b.id]++
	return true
}
