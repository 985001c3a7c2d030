package handoff

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff/receiver"
	"github.com/unitgen/unitgen/internal/handoff/wire"
)

// maxUnanswered bounds the unanswered connections of a Receiver: its event loop is behind by that
// many.
const maxUnanswered = 4

// restTime is how long a Receiver gets no connection after it has refused one or had no room for
// one, unless it sends a message earlier.
const restTime = 100 * time.Millisecond

// AttachReceiver adds a Receiver, in place of the one with that number. The Dispatcher reads its
// messages from now on, and gives it connections after Serving.
//
// A Receiver with connections from an earlier balancer is not fresh. It gets no connections until
// it has answered the first Ask, as its earlier answers are meant for the earlier balancer.
func (d *Dispatcher) AttachReceiver(id int, r receiver.Receiver, fresh bool) error {
	// A duplicate: the loop polls it until this descriptor is closed, whoever else has the channel
	// or closes it.
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

// ofLocked returns the backend of a receiver, or nil if another receiver has its number.
func (d *Dispatcher) ofLocked(id int, r receiver.Receiver) *backend {
	if b := d.backends[id]; b != nil && b.receiver == r {
		return b
	}
	return nil
}

// Serving sets whether a receiver takes connections. The receiver still answers the connections
// that it has been given.
func (d *Dispatcher) Serving(id int, r receiver.Receiver, serving bool) {
	d.locked(func() {
		if b := d.ofLocked(id, r); b != nil && b.report.Closing == serving {
			b.report.Closing = !serving
			d.changed = true
			d.dispatchAllLocked()
		}
	})
}

// Hear reads the messages of a receiver that had no room for a message.
func (d *Dispatcher) Hear(id int, r receiver.Receiver) {
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

func (d *Dispatcher) receiverAnswersLocked(b *backend, s receiver.Said) {
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

func (d *Dispatcher) receiverReportsLocked(b *backend, s receiver.Said) {
	if !b.ready && s.Token != b.token {
		return // for an earlier balancer
	}
	// The receiver has already answered the connections that it has taken so far.
	b.report = wire.Report{Answered: uint64(s.Open), Closing: b.report.Closing}
	b.busy, b.full, b.resting = s.Busy, false, false
	if s.Token == b.token {
		b.ready, b.asked = true, b.asked+1
		d.changed = true
	}
}

// withdraw removes the connection of that number from the orders.
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

// wakeLater ends the restTime of a backend.
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
