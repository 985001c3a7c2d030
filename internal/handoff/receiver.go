package handoff

import (
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff/wire"
)

// Receiver is an instance that is given its connections by a protocol of its own, not that of package wire: it cannot
// accept by itself. Its methods are called with the Dispatcher's state locked: they neither block nor call it.
type Receiver interface {
	// Give sends a connection of a listener. The descriptor stays the Dispatcher's until Answered names the number. It is
	// false if the receiver has no room now.
	Give(listener, fd int) (number uint64, ok bool)
	// Ask has the receiver tell what it has, which Reported takes in with the same token.
	Ask(token int)
}

// maxUnanswered bounds the connections that a Receiver has not answered: its event loop is behind by as many.
const maxUnanswered = 4

// restTime is how long a Receiver gets nothing after it has refused a connection, or had no room for one, unless it says
// something before.
const restTime = 100 * time.Millisecond

// AttachReceiver adds an instance that is given its connections, in place of the one with that number. One that has been
// given some by an earlier balancer is not fresh: it gets none until it has answered the first Ask, as what it answers
// before is not for this one. It takes connections from Serving on.
func (d *Dispatcher) AttachReceiver(id int, r Receiver, fresh bool) {
	d.locked(func() {
		if old := d.backends[id]; old != nil {
			d.dropLocked(old)
		}
		b := &backend{id: id, fd: -1, receiver: r, token: 1 + rand.IntN(1<<16-1), ready: fresh}
		b.report.Closing = true
		d.backends[id] = b
		if !fresh {
			r.Ask(b.token)
		}
		d.dispatchAllLocked() // what the one before has not answered
	})
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

// Answered says that a receiver has taken a connection, or that it must go to another.
func (d *Dispatcher) Answered(id int, r Receiver, number uint64, taken bool) {
	d.locked(func() {
		b := d.ofLocked(id, r)
		if b == nil {
			return
		}
		c, ok := b.withdraw(number)
		switch {
		case !ok: // given by an earlier balancer
			return
		case taken:
			unix.Close(c.fd)
			b.report.Answered++
			b.full = false
		default:
			d.stranded = append(d.stranded, c)
			b.resting = true
			d.wakeLater(b)
		}
		d.dispatchBehindLocked()
	})
}

// Reported takes in how many connections a receiver has open, and how many of them are in the middle of something.
func (d *Dispatcher) Reported(id int, r Receiver, token, open, busy int) {
	d.locked(func() {
		b := d.ofLocked(id, r)
		if b == nil || !b.ready && token != b.token {
			return
		}
		// What it has taken so far it has answered before.
		b.report = wire.Report{Answered: uint64(open), Closing: b.report.Closing}
		b.busy, b.full, b.resting = busy, false, false
		if token == b.token {
			b.ready, b.asked = true, b.asked+1
			d.changed = true
		}
		d.dispatchBehindLocked()
	})
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
