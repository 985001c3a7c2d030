package shim

import (
	"context"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/internal/sockdiag"
	"github.com/unitgen/unitgen/internal/systemd"
)

// drainHold is how long a drained instance stays off the ring without a word from PID 1. Its stop has begun before the
// drain, but the signal that says so comes by another way than the drain's answer; should the caller not stop it at
// all, the instance comes back.
const drainHold = 5 * time.Second

// drainWait is one client that waits for an instance's connections to end.
type drainWait struct {
	control.DrainParameters
	began    time.Time
	deadline time.Time
	asked    int                  // answers of an instance to Ask before those that count; only on the handoff path
	token    int                  // reports of a Node process with a lower one are older than the drain
	closing  time.Time            // when a Node process was told to end, or its connections; zero before, and for other programs
	cutting  bool                 // a Node process was told to close what it has
	done     chan control.Drained // buffered, so that the loop never waits for a client
}

// drain answers method Drain: the instance is off the ring when the first answer is sent, which says {"state":
// "draining"}; the last one comes when no connection of it is busy, or after the drain time-out; see also
// control.DrainParameters.Graceful. When the client goes away the instance may come back, unless PID 1 stops it.
func (s *Shim) drain(ctx context.Context, r *control.Request) (any, error) {
	var p control.DrainParameters
	if err := r.Decode(&p); err != nil {
		return nil, err
	}
	var d *drainWait
	if !s.do(ctx, func() { d = s.beginDrain(p) }) {
		return nil, errEnded
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
		return nil, errEnded
	}
}

// beginDrain takes an instance off the ring and registers who waits; nil if there is no such instance.
func (s *Shim) beginDrain(p control.DrainParameters) *drainWait {
	in := s.instances[p.Instance]
	if in == nil {
		return nil
	}
	in.draining++
	s.move(in)
	if s.attached(in) && !in.node.channel.Order(nodecluster.LetGo()) {
		s.log.Warn("tell program to let its connections go, ignoring", "instance", p.Instance)
	}
	if err := s.setRing(time.Now()); err != nil {
		s.log.Error("drain instance, ignoring", "instance", p.Instance, "error", err)
	}
	now := time.Now()
	d := &drainWait{DrainParameters: p, began: now, deadline: now.Add(s.options.DrainTimeout), done: make(chan control.Drained, 1)}
	s.drains[d] = true
	s.nodes.asked++
	d.token = s.nodes.asked
	s.watchEnds()
	if s.handsOff() {
		d.asked = s.handoff.Stat(p.Instance).Asked
		s.handoff.Ask(p.Instance)
	}
	s.tick.Reset(0)
	return d
}

// countDrains ends the drains of instances that may be told to stop now, and those that are out of time.
func (s *Shim) countDrains() {
	if len(s.drains) == 0 {
		return
	}
	now := time.Now()
	if s.handsOff() {
		for d := range s.drains {
			s.drainHanded(d, now)
		}
		return
	}
	counts, err := s.count()
	if err != nil {
		s.log.Warn("count connections, drains run to their time-out", "error", err)
	}
	for d := range s.drains {
		c, known := counts[d.Instance]
		held := held(d.Instance, counts)
		busy := held.Busy + held.Queued
		quiet := known && busy == 0 && held.Unsure == 0
		switch in := s.instances[d.Instance]; {
		case s.attached(in) && !now.After(d.deadline):
			own := traffic{open: c.Open, known: known, quiet: quiet}
			if !in.ownCgroup() {
				own = traffic{} // the counts are the whole app's
			}
			s.drainNode(d, in, own, now)
		case quiet, d.Graceful && s.answered(d, counts, now):
			s.endDrain(d, control.Drained{Open: c.Open, Busy: busy})
		case now.After(d.deadline):
			s.outOfTime(d, control.Drained{Open: c.Open, Busy: busy})
		}
	}
}

// outOfTime ends a drain at its time-out. The stop signal follows.
func (s *Shim) outOfTime(d *drainWait, result control.Drained) {
	if in := s.instances[d.Instance]; s.attached(in) && d.closing.IsZero() && s.options.ShutdownMessage {
		in.node.channel.Order(s.farewell())
	}
	result.TimedOut = true
	s.endDrain(d, result)
}

// answered says that a program which shuts down gracefully may be told to. The requests that were in flight are waited for
// here, as its own patience may be shorter than the drain time-out; those that came after them on connections that clients
// keep using would have no end. Where connections cannot be counted the program does all of it.
func (s *Shim) answered(d *drainWait, counts map[int]sockdiag.Stat, now time.Time) bool {
	lasted := now.Sub(d.began)
	if lasted < d.Settle {
		return false
	}
	if queued, err := s.queuedAt(d.Instance); err != nil || queued > 0 {
		return false // it may close its listeners at once
	}
	return held(d.Instance, counts).Waiting <= lasted
}

// watchEnds listens for ends of connections while a drain waits for them.
func (s *Shim) watchEnds() {
	if s.handsOff() {
		return // the instances tell
	}
	if err := s.counter.watchEnds(len(s.drains) > 0, s.ports()); err != nil {
		s.log.Warn("watch ends of connections, drains go by the tick", "error", err)
	}
}

func (s *Shim) endDrain(d *drainWait, result control.Drained) {
	if !s.drains[d] {
		return
	}
	delete(s.drains, d)
	s.watchEnds()
	d.done <- result
	log := s.log.Info
	if result.TimedOut {
		log = s.log.Warn
	}
	log("instance drained", "instance", d.Instance, "connections", result.Open, "busy", result.Busy, "timed_out", result.TimedOut)
}

// forgetDrain ends what beginDrain began, after the client has its answer or is gone.
func (s *Shim) forgetDrain(d *drainWait) {
	if s.drains[d] {
		delete(s.drains, d)
		s.watchEnds()
	}
	in := s.instances[d.Instance]
	if in == nil {
		return
	}
	in.draining--
	if in.draining == 0 && s.attached(in) && in.state() == balance.Up {
		in.node.channel.Order(nodecluster.HoldOn()) // without room it closes connections that it could keep
	}
	if in.state() == balance.Up {
		in.held = time.Now().Add(drainHold)
	}
	s.move(in)
}

// endHolds lets instances back on the ring whose drain was not followed by a stop. PID 1 is asked for that: on a busy
// machine its signals come late, and what waits at the listener of an extra instance that has stopped is reset when PID 1
// stops its socket (flush_ports in src/core/socket.c).
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
