package shim

import (
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// nextLook is when the next tick is due.
func (s *Shim) nextLook(now time.Time) time.Duration {
	if len(s.drains) > 0 || len(s.host.waiting) > 0 || s.anyStall() || now.Sub(s.activity.recent) < tickIdle {
		return tickBusy
	}
	return tickIdle
}

// How often the shim looks at the queues. No event tells that an instance does not accept, short of
// one per connection.
const (
	tickBusy = path.LookEvery // while connections come
	tickIdle = time.Second    // while none do: the look is one load per address then
)

// stuckAfter is when an instance is stuck: something has waited for it and it has taken nothing for
// so long. A single-threaded program that works on one request for that long counts too, and
// rightly: others can serve what waits behind it.
const stuckAfter = 4 * tickBusy

// How long a stuck instance stays off the ring before it gets another chance, doubled each time up
// to the maximum.
const (
	ejectFirst = time.Second
	ejectMax   = 30 * time.Second
)

// silentAfter is how long an instance that stays on the ring, as no other keeps up, must have
// accepted nothing for the status line to say so: longer than any burst, or the line would flicker.
const silentAfter = 5 * time.Second

// stall is the shim's record of an instance that may not be accepting its connections.
type stall struct {
	queued int           // not taken yet
	since  time.Time     // it has been stalled; zero if it is not
	silent bool          // for longer than silentAfter
	until  time.Time     // it is off the ring
	back   time.Duration // the last time off the ring
}

// moveQueues empties queues that nobody serves: of instances that are down, to those on the ring or
// to the parking listener; and of the parking listener, once an instance is on the ring.
func (s *Shim) moveQueues() {
	if s.closed {
		return
	}
	for _, in := range s.instances {
		if b, ok := s.pool.Backend(in.number); ok && in.forsaken(b) && in.unwatched() {
			s.path.Rescue(in.number)
		}
	}
	if len(s.ring) > 0 && !s.parkingWatched {
		s.path.Rescue(path.Parking)
	}
}

// forsaken reports that no program will take the connections that wait at an instance.
func (in *instance) forsaken(b balance.Backend) bool {
	return b.Stuck || b.State == balance.Down && !in.starting()
}

// look is the tick: it finds stuck instances, gives ejected ones another chance, and sees whether
// the app is idle.
func (s *Shim) look(now time.Time) error {
	s.countDrains(now)
	s.channels.Ask()
	looks, harms := s.path.Look(now)
	s.judge(harms, now)
	s.endHolds(now)
	s.lookHost(now)
	if !s.activity.look(now, given(looks)) && !s.anyStall() {
		return s.lookIdle(now)
	}
	for _, in := range s.instances {
		b, ok := s.pool.Backend(in.number)
		if !ok || b.State != balance.Up {
			continue
		}
		if b.Stuck {
			s.secondChance(in, now)
			continue
		}
		stalled := in.stalled(looks[in.number], now)
		if stalled && s.othersServe(in, looks) {
			s.eject(in, now)
			continue
		}
		in.stall.silence(stalled, now)
	}
	return s.lookIdle(now)
}

// given is the number of connections given to the present instances and to the parking listeners so
// far.
func given(looks map[int]path.Look) (n uint64) {
	for _, l := range looks {
		n += l.Given
	}
	return n
}

// silence notes how long an instance has been stalled.
func (st *stall) silence(stalled bool, now time.Time) {
	switch {
	case !stalled:
		st.since = time.Time{}
	case st.since.IsZero():
		st.since = now
	}
	st.silent = stalled && now.Sub(st.since) >= silentAfter
}

// stalled reports whether the instance has taken nothing for too long. An instance that has just
// come up gets time.
func (in *instance) stalled(l path.Look, now time.Time) bool {
	in.stall.queued = l.Waiting
	if l.Progress {
		in.stall.back = 0 // it serves: the next time off the ring is a short one again
	}
	return min(l.Stalled, now.Sub(in.since)) >= stuckAfter
}

// othersServe says whether another instance is on the ring and keeps up. Where none does, all are
// busy rather than stuck, and moving connections about would only reorder them.
func (s *Shim) othersServe(in *instance, looks map[int]path.Look) bool {
	for _, other := range s.instances {
		b, ok := s.pool.Backend(other.number)
		if ok && other != in && b.InRing() && !looks[other.number].Behind {
			return true
		}
	}
	return false
}

func (s *Shim) eject(in *instance, now time.Time) {
	if err := s.pool.Eject(in.number); err != nil {
		s.log.Error("eject instance, ignoring", "instance", in.number, "error", err)
		return
	}
	in.stall.back = min(max(2*in.stall.back, ejectFirst), ejectMax)
	in.stall.until = now.Add(in.stall.back)
	s.log.Warn("instance does not accept, its waiting connections go to others", "instance", in.number,
		"queued", in.stall.queued, "again_in", in.stall.back.String())
}

func (s *Shim) secondChance(in *instance, now time.Time) {
	if now.Before(in.stall.until) {
		return
	}
	if err := s.pool.Restore(in.number, now); err != nil {
		s.log.Error("restore instance, ignoring", "instance", in.number, "error", err)
		return
	}
	s.log.Info("instance gets connections again", "instance", in.number)
}

// anyStall reports whether the shim must check although no connection came: a queue was not empty,
// or an instance is off the ring.
func (s *Shim) anyStall() bool {
	for _, in := range s.instances {
		if in.stall.queued > 0 || !in.stall.until.IsZero() {
			return true
		}
	}
	return false
}
