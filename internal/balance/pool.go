// Package balance decides which instance may take the next connection: backend states, weights,
// slow start and the ring, which is the order of picks for the data paths.
//
// It is pure: no system calls, no goroutines, no clock. The caller says what time it is and what
// happened to a backend; the pool returns the ring and when to ask again. The package does not
// deliver connections (packages steer and handoff do) and counts none.
package balance

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Options configures a Pool. The zero value is round robin without slow start.
type Options struct {
	Strategy  Strategy      // zero means RoundRobin
	SlowStart time.Duration // how long a backend that comes back takes to reach its full weight; zero means at once
}

// Pool is the set of backends of one app. It is not safe for concurrent use: one goroutine owns it.
type Pool struct {
	options  Options
	backends map[int]*Backend
}

// NewPool returns a pool without backends. An unknown strategy is an error: a path that cannot do
// one must not run.
func NewPool(options Options) (*Pool, error) {
	if !options.Strategy.known() {
		return nil, fmt.Errorf("make pool: there is no strategy %q", options.Strategy)
	}
	return &Pool{options: options, backends: make(map[int]*Backend)}, nil
}

// SetStrategy changes how the ring is made from now on; an unknown one is an error and changes
// nothing.
func (p *Pool) SetStrategy(s Strategy) error {
	n, err := NewPool(Options{Strategy: s, SlowStart: p.options.SlowStart})
	if err != nil {
		return err
	}
	p.options = n.options
	return nil
}

// SlowStart changes how long a backend that comes back takes to reach its full weight, from now on;
// zero means at once.
func (p *Pool) SlowStart(d time.Duration) { p.options.SlowStart = d }

// Add puts a backend in the pool, state Down. A weight of zero means 1. Adding an ID that is there
// is an error.
func (p *Pool) Add(id, weight int) error {
	if id < 1 || id > MaxID {
		return fmt.Errorf("add backend %d: number must be between 1 and %d", id, MaxID)
	}
	if p.backends[id] != nil {
		return fmt.Errorf("add backend %d: it is already in the pool", id)
	}
	if weight == 0 {
		weight = MinWeight
	}
	b := &Backend{ID: id}
	if err := b.weigh(weight); err != nil {
		return err
	}
	p.backends[id] = b
	return nil
}

// Remove removes a backend from the pool; an unknown backend is ignored.
func (p *Pool) Remove(id int) { delete(p.backends, id) }

// Weigh changes a backend's weight.
func (p *Pool) Weigh(id, weight int) error {
	b, err := p.find(id)
	if err != nil {
		return err
	}
	return b.weigh(weight)
}

// Move sets the state of a backend at time now. Any state may follow any other, because PID 1
// reports what happened. A backend that comes up again starts slowly. A backend that comes up for
// the first time does not, as all backends do so when the process starts. Every move clears Stuck:
// a restarted backend gets a new chance.
func (p *Pool) Move(id int, to State, now time.Time) error {
	b, err := p.find(id)
	if err != nil {
		return err
	}
	if b.State == to {
		return nil
	}
	b.State, b.Stuck = to, false
	b.enter(now)
	return nil
}

// Eject takes a backend that is up off the ring, because it does not accept its connections.
func (p *Pool) Eject(id int) error {
	b, err := p.find(id)
	if err != nil {
		return err
	}
	b.Stuck = true
	return nil
}

// Restore ends an ejection at time now; the backend starts slowly. A backend that is not ejected is
// left alone.
func (p *Pool) Restore(id int, now time.Time) error {
	b, err := p.find(id)
	if err != nil {
		return err
	}
	if b.Stuck {
		b.Stuck = false
		b.enter(now)
	}
	return nil
}

// Backend returns a copy of one backend; false if it is not in the pool.
func (p *Pool) Backend(id int) (Backend, bool) {
	b := p.backends[id]
	if b == nil {
		return Backend{}, false
	}
	return *b, true
}

// Backends returns copies of all backends, sorted by number.
func (p *Pool) Backends() []Backend {
	all := make([]Backend, 0, len(p.backends))
	for _, id := range slices.Sorted(maps.Keys(p.backends)) {
		all = append(all, *p.backends[id])
	}
	return all
}

// Ring returns the order of picks at time now (see the function Ring), and the time of its next
// change by slow start; the zero time means never. An empty ring means that no backend may take a
// connection, and connections have to wait.
func (p *Pool) Ring(now time.Time) ([]uint16, time.Time) {
	var members []Member
	var change time.Time
	for _, b := range p.Backends() {
		if !b.InRing() {
			continue
		}
		if p.options.Strategy == First {
			return []uint16{uint16(b.ID)}, time.Time{}
		}
		part, next := b.part(now, p.options.SlowStart)
		members = append(members, Member{ID: b.ID, Weight: b.Weight * part})
		if !next.IsZero() && (change.IsZero() || next.Before(change)) {
			change = next
		}
	}
	return Ring(members), change
}

func (p *Pool) find(id int) (*Backend, error) {
	if b := p.backends[id]; b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("find backend %d: it is not in the pool", id)
}

// enter notes that b is, or is not, in the ring from now on.
func (b *Backend) enter(now time.Time) {
	switch {
	case !b.InRing():
		b.back = time.Time{}
	case b.wasUp:
		b.back = now
	default:
		b.wasUp = true
	}
}

func (b *Backend) weigh(weight int) error {
	if weight < MinWeight || weight > MaxWeight {
		return fmt.Errorf("weigh backend %d: weight must be between %d and %d, got %d", b.ID, MinWeight, MaxWeight, weight)
	}
	b.Weight = weight
	return nil
}
