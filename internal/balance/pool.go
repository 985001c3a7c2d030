// Package balance decides which instance may take the next connection: backend states, weights, slow start and the
// ring, which is the order of picks that the data paths walk.
//
// It is pure: no system calls, no goroutines, no clock of its own. The caller says what time it is and what happened to
// a backend; the pool says what the ring is now and when to ask again. It is not for delivering connections (packages
// steer, handoff and proxy do that) and it counts none.
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

// NewPool returns a pool without backends. An unknown strategy is an error: a path that cannot do one must not run.
func NewPool(options Options) (*Pool, error) {
	if !options.Strategy.known() {
		return nil, fmt.Errorf("make pool: there is no strategy %q", options.Strategy)
	}
	return &Pool{options: options, backends: make(map[int]*Backend)}, nil
}

// SetStrategy changes how the ring is made from now on; an unknown one is an error and changes nothing.
func (p *Pool) SetStrategy(s Strategy) error {
	n, err := NewPool(Options{Strategy: s, SlowStart: p.options.SlowStart})
	if err != nil {
		return err
	}
	p.options = n.options
	return nil
}

// SlowStart changes how long a backend that comes back takes to reach its full weight, from now on; zero means at once.
func (p *Pool) SlowStart(d time.Duration) { p.options.SlowStart = d }

// Add puts a backend in the pool, state Down. A weight of zero means 1. Adding an ID that is there is an error.
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

// Remove takes a backend out of the pool and forgets it; one that is not there is ignored.
func (p *Pool) Remove(id int) { delete(p.backends, id) }

// Weigh changes a backend's weight.
func (p *Pool) Weigh(id, weight int) error {
	b, err := p.find(id)
	if err != nil {
		return err
	}
	return b.weigh(weight)
}

// Move puts a backend in a state at time now. Any state may follow any other: what PID 1 reports is what happened. A
// backend that comes up again, having been up before, starts slowly; one that comes up for the first time does not, as
// all would at the start of the process. Every move clears Stuck: a restarted backend gets a new chance.
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

// Eject takes a backend off the ring though it is up, because it does not accept what it was given.
func (p *Pool) Eject(id int) error {
	b, err := p.find(id)
	if err != nil {
		return err
	}
	b.Stuck = true
	return nil
}

// Restore ends an ejection at time now; the backend starts slowly. One that is not ejected is left alone.
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

// Ring returns the order of picks at time now (see the function Ring), and the instant at which it changes though
// nothing happens, because slow start goes one step on; the zero time means never. An empty ring means that no backend
// may take a connection, and connections have to wait.
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
