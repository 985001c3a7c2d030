package handoff

import (
	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff/tally"
	"github.com/unitgen/unitgen/internal/handoff/wire"
)

// maxLooks bounds the reads of an instance's counts, in the hope that it finishes an accept, before
// the balancer asks for a message. A read takes about a microsecond, as accept4(2) does.
const maxLooks = 8

// lookLocked reads the counts of the instances on the ring. It reports whether any count has
// changed, and whether all counts are current: no instance is just accepting a connection.
func (d *Dispatcher) lookLocked() (moved, sure bool) {
	sure = true
	for _, m := range d.picker.Members() {
		if b := d.backends[m.ID]; b != nil {
			itsMoved, itsSure := d.lookAtLocked(b)
			moved, sure = moved || itsMoved, sure && itsSure
		}
	}
	return moved, sure
}

func (d *Dispatcher) lookAtLocked(b *backend) (moved, sure bool) {
	if b.tally == nil || !b.ready {
		return false, len(b.orders) == 0
	}
	c, accepting, used := b.tally.Look()
	c = c.Max(countsOf(b.report)) // a message may have been here before
	if c == countsOf(b.report) {
		return false, len(b.orders) == 0 || used && !accepting
	}
	if err := b.count(c); err != nil {
		d.options.Log.Warn("instance gets no more connections", "instance", b.id, "error", err)
		_ = unix.Shutdown(b.fd, unix.SHUT_RDWR) // whose event drops it
		b.tally.Close()
		b.tally, b.report.Closing = nil, true
	}
	return true, !accepting
}

// counts returns the current counts of the instance; r is its latest report.
func (b *backend) counts(r wire.Report) tally.Counts {
	c := countsOf(r)
	if b.tally != nil {
		seen, _, _ := b.tally.Look()
		c = c.Max(seen)
	}
	return c
}

func countsOf(r wire.Report) tally.Counts {
	return tally.Counts{Answered: r.Answered, Missed: r.Missed, Closed: r.Closed}
}

// settleLocked asks the instances to send messages for later counts, if connections wait for them.
func (d *Dispatcher) settleLocked() {
	for range maxLooks {
		behind := d.behindLocked()
		for _, m := range d.picker.Members() {
			if b := d.backends[m.ID]; b != nil && b.tally != nil {
				b.tally.Tell(behind)
			}
		}
		if !behind {
			return
		}
		if moved, _ := d.lookLocked(); !moved {
			return
		}
		d.dispatchBehindLocked()
	}
}
