package shim

import (
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/steer"
)

// nextLook is when the next tick is due.
func (s *Shim) nextLook(now time.Time) time.Duration {
	if len(s.drains) > 0 || len(s.host.waiting) > 0 || s.anyStall() || now.Sub(s.activity.recent) < tickIdle {
		return tickBusy
	}
	return tickIdle
}

// How often the shim looks at the queues. No event tells that an instance does not accept, short of one per connection.
const (
	tickBusy = 200 * time.Millisecond // while connections come
	tickIdle = time.Second            // while none do: the look is one load per address then
)

// When an instance is stuck: its queue has connections and it took none for stuckAfter ticks in a row. A single-threaded
// program that works on one request for that long counts too, and rightly: others can serve what waits behind it.
const stuckAfter = 4

// How long a stuck instance stays off the ring before it gets another chance, doubled each time up to the maximum.
const (
	ejectFirst = time.Second
	ejectMax   = 30 * time.Second
)

// silentAfter is how long an instance that stays on the ring, as no other keeps up, must have accepted nothing for the status line
// to say so: longer than any burst, or the line would flicker.
const silentAfter = 5 * time.Second

// stall is what the shim knows of an instance's accept queue.
type stall struct {
	queued  int
	steered uint64
	ticks   int       // in a row without progress
	since   time.Time // it has been stalled; zero if it is not
	silent  bool      // for longer than silentAfter
	until   time.Time
	back    time.Duration // the last time off the ring
}

// moveQueues empties queues that nobody serves: of instances that are down, to those on the ring or to the parking
// listener; and of the parking listener, once an instance is on the ring.
func (s *Shim) moveQueues() {
	if s.closed || s.kernel.Distribution && !s.kernel.Migration {
		return // a moved connection would wake nobody: it waits for its instance instead
	}
	for _, in := range s.instances {
		if b, ok := s.pool.Backend(in.number); ok && in.forsaken(b) && in.unwatched() {
			s.moveQueue(in)
		}
	}
	if len(s.ring) == 0 || s.parkingWatched {
		return
	}
	for _, a := range s.addresses {
		if moved := a.rescue(steer.Parking, a.parking, s.log); moved > 0 {
			s.log.Info("waiting connections moved to instances", "address", a.String(), "connections", moved)
		}
	}
}

// forsaken says that nobody will take what waits at an instance.
func (in *instance) forsaken(b balance.Backend) bool {
	return b.Stuck || b.State == balance.Down && !in.starting()
}

func (s *Shim) moveQueue(in *instance) {
	for a, l := range in.listeners {
		if queued, err := a.queue(l.fd); err == nil && queued == 0 {
			continue
		}
		before := s.beforeMove(in.number, l)
		if moved := a.rescue(in.number, l.fd, s.log); moved > 0 {
			s.log.Info("waiting connections moved away", "instance", in.number, "address", a.String(), "connections", moved)
			s.afterMove(in.number, l, before)
		}
	}
}

// look is the tick: it finds stuck instances, gives ejected ones another chance, and sees whether the app is idle.
func (s *Shim) look(now time.Time) error {
	s.countDrains()
	if s.handsOff() {
		s.askHanded()
	} else {
		s.askNodes()
	}
	s.guard(now)
	s.endHolds(now)
	s.lookHost(now)
	if !s.activity.look(now, s.steered()) && !s.anyStall() {
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
		stalled := s.stalled(in)
		if stalled && s.othersServe(in) {
			s.eject(in, now)
			continue
		}
		in.stall.silence(stalled, now)
	}
	return s.lookIdle(now)
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

// stalled measures the instance's queues and says whether it has accepted nothing for too long.
func (s *Shim) stalled(in *instance) bool {
	if s.handsOff() {
		return s.stalledHanded(in)
	}
	queued, steered, err := in.queues()
	if err != nil {
		s.log.Warn("read accept queue, ignoring", "instance", in.number, "error", err)
		return false
	}
	// What was steered here and does not wait was accepted; attempts that never became connections look like progress,
	// which errs on the side of leaving an instance alone.
	accepted := int64(steered-in.stall.steered) - int64(queued-in.stall.queued)
	in.stall.queued, in.stall.steered = queued, steered
	if queued == 0 || accepted > 0 {
		in.stall.ticks = 0
		if queued == 0 && accepted > 0 {
			in.stall.back = 0 // it serves: the next time off the ring is a short one again
		}
		return false
	}
	in.stall.ticks++
	return in.stall.ticks >= stuckAfter
}

// queues is what waits at the instance's listeners, and what was steered there so far.
func (in *instance) queues() (queued int, steered uint64, err error) {
	for a, l := range in.listeners {
		n, err := a.queue(l.fd)
		if err != nil {
			return 0, 0, err
		}
		queued += n
		steered += a.group.Steered(in.number)
	}
	return queued, steered, nil
}

// othersServe says whether another instance is on the ring and keeps up. Where none does, all are busy rather than
// stuck, and moving connections about would only reorder them.
func (s *Shim) othersServe(in *instance) bool {
	for _, other := range s.instances {
		b, ok := s.pool.Backend(other.number)
		if ok && other != in && b.InRing() && s.keepsUp(other) {
			return true
		}
	}
	return false
}

func (s *Shim) keepsUp(in *instance) bool {
	if s.handsOff() {
		return s.handoff.Stat(in.number).Waits < tickBusy
	}
	return in.stall.queued == 0
}

func (s *Shim) eject(in *instance, now time.Time) {
	if err := s.pool.Eject(in.number); err != nil {
		s.log.Error("eject instance, ignoring", "instance", in.number, "error", err)
		return
	}
	in.stall.back = min(max(2*in.stall.back, ejectFirst), ejectMax)
	in.stall.until = now.Add(in.stall.back)
	in.stall.ticks = 0
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
	if !s.handsOff() {
		// Its queue was moved away since the last look, which must not count as accepted.
		queued, steered, err := in.queues()
		if err != nil {
			s.log.Warn("read accept queue, ignoring", "instance", in.number, "error", err)
		}
		in.stall.queued, in.stall.steered = queued, steered
	}
	s.log.Info("instance gets connections again", "instance", in.number)
}

// anyStall says whether a look is due though nothing came: a queue was not empty, or an instance is off the ring.
func (s *Shim) anyStall() bool {
	for _, in := range s.instances {
		if in.stall.queued > 0 || !in.stall.until.IsZero() {
			return true
		}
	}
	return false
}

// steered is the number of connections given to the present instances and to the parking listeners so far: one load of
// shared memory each.
func (s *Shim) steered() uint64 {
	var n uint64
	for _, a := range s.addresses {
		n += a.group.Steered(steer.Parking)
		for number := range s.instances {
			n += a.group.Steered(number)
		}
	}
	return n
}
