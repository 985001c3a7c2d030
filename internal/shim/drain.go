package shim

import (
	"context"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim/channel"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/systemd"
)

// drainHold is how long a drained instance stays off the ring until PID 1 reports its stop. The
// stop has begun before the drain, but PID 1's signal may arrive after the answer to the drain. If
// nobody stops the instance, it returns to the ring.
const drainHold = 5 * time.Second

// drainWait is one client that waits for an instance's connections to end.
type drainWait struct {
	control.DrainParameters
	in       *instance
	began    time.Time
	deadline time.Time
	program  *channel.Drain       // what the instance's program is told, if it has a channel
	done     chan control.Drained // buffered, so that the loop never waits for a client
}

// drain answers method Drain: the instance is off the ring when the first answer is sent, which
// says {"state": "draining"}; the last one comes when no connection of it is busy, or after the
// drain time-out; see also control.DrainParameters.Graceful. When the client goes away the instance
// may come back, unless PID 1 stops it.
func (s *Shim) drain(ctx context.Context, r *control.Request) (any, error) {
	var p control.DrainParameters
	if err := r.Decode(&p); err != nil {
		return nil, err
	}
	var d *drainWait
	if !s.do(ctx, func() { d = s.beginDrain(p) }) {
		return nil, path.ErrEnded
	}
	if d == nil {
		return nil, &control.Error{Name: control.ErrNoSuchInstance, Reason: "no such instance"}
	}
	defer s.do(context.WithoutCancel(ctx), func() { s.forgetDrain(d) })
	if r.More {
		if err := r.Send(map[string]string{"state": "draining"}); err != nil {
			return nil, err
		}
	}
	select {
	case result := <-d.done:
		return result, nil
	case <-ctx.Done():
		return nil, path.ErrEnded
	}
}

// beginDrain takes an instance off the ring and registers the client that waits; nil if there is no
// such instance.
func (s *Shim) beginDrain(p control.DrainParameters) *drainWait {
	in := s.instances[p.Instance]
	if in == nil {
		return nil
	}
	in.draining++
	s.move(in)
	program := s.channels.BeginDrain(p.Instance)
	if err := s.setRing(time.Now()); err != nil {
		s.log.Error("drain instance, ignoring", "instance", p.Instance, "error", err)
	}
	now := time.Now()
	d := &drainWait{
		DrainParameters: p, in: in, began: now, deadline: now.Add(s.options.DrainTimeout), program: program, done: make(chan control.Drained, 1),
	}
	s.drains[d] = true
	s.path.Drain(p.Instance, true)
	s.tick.Reset(0)
	return d
}

// countDrains ends the drains of instances that may stop now, and those whose time is up.
func (s *Shim) countDrains(now time.Time) {
	if len(s.drains) == 0 {
		return
	}
	traffic, err := s.path.Count(now)
	if err != nil {
		s.log.Warn("count connections, drains run to their time-out", "error", err)
	}
	for d := range s.drains {
		t, late := traffic[d.Instance], now.After(d.deadline)
		var done, told bool
		if !late {
			told, done = d.program.Step(now, now.Sub(d.began), d.deadline.Sub(now), t)
		}
		result := control.Drained{Open: t.Open, Busy: t.Busy}
		switch {
		case done, !told && d.answered(t, now):
			s.endDrain(d, result)
		case late:
			d.program.OutOfTime()
			result.TimedOut = true
			s.endDrain(d, result)
		}
	}
}

// answered says that a program may be told to stop: no connection is in the middle of something, or
// the program shuts down gracefully and the requests are answered that were in flight when the
// drain began. These are waited for here, as the program's own patience may be shorter than the
// drain time-out. Those that came after them on connections that clients keep using would have no
// end.
func (d *drainWait) answered(t path.Traffic, now time.Time) bool {
	lasted := now.Sub(d.began)
	return t.Quiet || d.Graceful && lasted >= d.Settle && t.Taken && t.Unanswered <= lasted
}

// endOver ends the drains of programs that have ended by themselves.
func (s *Shim) endOver() {
	for d := range s.drains {
		if d.program.Over() {
			s.endDrain(d, control.Drained{})
		}
	}
}

func (s *Shim) endDrain(d *drainWait, result control.Drained) {
	if !s.drains[d] {
		return
	}
	s.removeDrain(d)
	d.done <- result
	log := s.log.Info
	if result.TimedOut {
		log = s.log.Warn
	}
	log("instance drained", "instance", d.Instance, "connections", result.Open, "busy", result.Busy, "timed_out", result.TimedOut)
}

// removeDrain removes a waiting drain. The path continues for other drains of the same instance.
func (s *Shim) removeDrain(d *drainWait) {
	delete(s.drains, d)
	for other := range s.drains {
		if other.Instance == d.Instance {
			return
		}
	}
	s.path.Drain(d.Instance, false)
}

// forgetDrain ends what beginDrain began, after the client has its answer or is gone.
func (s *Shim) forgetDrain(d *drainWait) {
	if s.drains[d] {
		s.removeDrain(d)
	}
	d.program.End()
	in := d.in
	if s.instances[d.Instance] != in {
		return // it has left; another one may have its number
	}
	in.draining--
	if in.state() == balance.Up {
		in.held = time.Now().Add(drainHold)
	}
	s.move(in)
}

// endHolds lets instances back on the ring whose drain was not followed by a stop. It asks PID 1,
// whose signals come late on a busy machine. Connections that wait at the listener of an extra
// instance that has stopped would be reset when PID 1 stops its socket (flush_ports in
// src/core/socket.c).
func (s *Shim) endHolds(now time.Time) {
	for _, in := range s.instances {
		if in.held.IsZero() || !now.After(in.held) {
			continue
		}
		unit, err := s.ask(s.options.App.Instance(in.number))
		if err != nil {
			s.log.Warn("read state of drained instance, it stays off the ring", "instance", in.number, "error", err)
			in.held = now.Add(drainHold)
			continue
		}
		s.endHold(in, unit)
	}
}

func (s *Shim) endHold(in *instance, unit systemd.UnitState) {
	in.held = time.Time{}
	s.serviceChanged(in, unit)
	s.move(in)
}
