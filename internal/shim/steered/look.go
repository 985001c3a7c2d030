package steered

import (
	"errors"
	"time"

	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/steer"
)

// sight is what the last look has seen of an instance's queues.
type sight struct {
	at     time.Time
	given  uint64
	queued int
	since  time.Time // the instance has taken nothing that waits; zero if it has, or nothing waits
}

// Look is of path.Path. While no connection comes and nothing waits, it reads no queue.
func (p *Path) Look(now time.Time) (map[int]path.Look, []path.Harm) {
	harms := p.guard()
	looks := map[int]path.Look{path.Parking: {Given: p.steered(steer.Parking)}}
	all := looks[path.Parking].Given
	for number := range p.members {
		looks[number] = path.Look{Given: p.steered(number)}
		all += looks[number].Given
	}
	idle := all == p.given && !p.queued
	p.given, p.queued = all, false
	for number, m := range p.members {
		if idle {
			m.seen.at = now
			continue
		}
		look, err := m.look(looks[number].Given, now)
		if err != nil {
			p.log.Warn("read accept queue, ignoring", "instance", number, "error", err)
			continue
		}
		looks[number] = look
		p.queued = p.queued || look.Waiting > 0
	}
	return looks, harms
}

// look measures the queues of an instance, which was given that many connections so far.
func (m *member) look(given uint64, now time.Time) (path.Look, error) {
	queued, err := m.queue()
	if err != nil {
		return path.Look{}, err
	}
	// What was steered here and does not wait was accepted. Attempts that never became connections
	// look like progress, which errs on the side of leaving an instance alone.
	accepted := int64(given-m.seen.given) - int64(queued-m.seen.queued)
	look := path.Look{Given: given, Waiting: queued, Behind: queued > 0, Progress: queued == 0 && accepted > 0}
	since := m.seen.since
	switch {
	case queued == 0 || accepted > 0:
		since = time.Time{}
	case since.IsZero():
		since = clampSince(m.seen.at, now)
	}
	if !since.IsZero() {
		look.Stalled = now.Sub(since)
	}
	m.seen = sight{at: now, given: given, queued: queued, since: since}
	return look, nil
}

// steered is the number of connections given to a slot so far: one load of shared memory for each
// address.
func (p *Path) steered(slot int) (n uint64) {
	for _, a := range p.addresses {
		n += a.group.Steered(slot)
	}
	return n
}

// queue is what waits at the instance's listeners.
func (m *member) queue() (queued int, err error) {
	for _, l := range m.listeners {
		n, err := queue(l.fd)
		if err != nil {
			return 0, err
		}
		queued += n
	}
	return queued, nil
}

// queue is how many connections wait at a listener.
func queue(fd int) (int, error) {
	queued, _, err := steer.Queue(fd)
	if errors.Is(err, steer.ErrNotListening) {
		return 0, nil // nobody waits; the next look puts the listener back
	}
	return queued, err
}

// Rescue is of path.Path. Where a moved connection would wake nobody, it waits for its instance
// instead.
func (p *Path) Rescue(number int) (moved int) {
	if p.kernel.Distribution && !p.kernel.Migration {
		return 0
	}
	if number == path.Parking {
		return p.rescueParked()
	}
	m := p.members[number]
	if m == nil {
		return 0
	}
	for a, l := range m.listeners {
		if queued, err := queue(l.fd); err == nil && queued == 0 {
			continue
		}
		before := p.beforeMove(number, l)
		if n := a.rescue(number, l.fd, p.log); n > 0 {
			moved += n
			p.log.Info("waiting connections moved away", "instance", number, "address", a.String(), "connections", n)
			p.afterMove(number, l, before)
		}
	}
	if moved > 0 {
		// What was moved away must not count as accepted.
		if queued, err := m.queue(); err == nil {
			m.seen = sight{at: m.seen.at, given: p.steered(number), queued: queued}
		}
		p.queued = true
	}
	return moved
}

func (p *Path) rescueParked() (moved int) {
	for _, a := range p.addresses {
		if n := a.rescue(steer.Parking, a.parking, p.log); n > 0 {
			moved += n
			p.queued = true
			p.log.Info("waiting connections moved to instances", "address", a.String(), "connections", n)
		}
	}
	return moved
}
