package shim

import (
	"context"
	"fmt"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// host is the drain of the whole app on this host. It changes nothing in the kernel: new
// connections are served until the load balancer in front sends no more.
type host struct {
	drained time.Time // when the drain began; zero: none
	waiting map[chan error]bool
	counted time.Time // when the connections were counted last for those that wait
}

// frontTime is the shortest time of a drain: a load balancer that asks every two seconds, HAProxy's
// default, has noticed by then, and its earlier connections have arrived.
const frontTime = 5 * time.Second

// hostCountEvery bounds how often connections are counted for those that wait. One count walks the
// kernel's table of sockets.
const hostCountEvery = time.Second

// hostNow answers method Host.
func (s *Shim) hostNow(ctx context.Context, r *control.Request) (h control.Host, err error) {
	if err := r.Decode(&struct{}{}); err != nil {
		return h, err
	}
	err = s.run1(ctx, func() error { h, err = s.hostState(); return err })
	return h, err
}

// drainHost answers method DrainHost. Draining a drained host changes nothing, also not when the
// drain began.
func (s *Shim) drainHost(ctx context.Context, r *control.Request) (h control.Host, err error) {
	var p control.HostDrain
	if err := r.Decode(&p); err != nil {
		return h, err
	}
	err = s.run1(ctx, func() error {
		switch {
		case p.Drain && s.host.drained.IsZero():
			s.host.drained = time.Now()
			s.log.Info("host is drained: the agent reports it, new connections are still served")
		case !p.Drain && !s.host.drained.IsZero():
			s.host.drained = time.Time{}
			s.log.Info("host is no longer drained")
		}
		s.endHostWaits(errUndrained, p.Drain)
		h, err = s.hostState()
		return err
	})
	return h, err
}

// errUndrained is what those are told who wait for a drain that was taken back, or was never begun.
var errUndrained = &control.Error{Name: control.ErrUnsupported, Reason: "the host is not drained"}

// hostDrained answers method HostDrained.
func (s *Shim) hostDrained(ctx context.Context, r *control.Request) (h control.Host, err error) {
	if err := r.Decode(&struct{}{}); err != nil {
		return h, err
	}
	done := make(chan error, 1) // so that the loop never waits for a client
	err = s.run1(ctx, func() error {
		if s.host.drained.IsZero() {
			return errUndrained
		}
		if s.host.waiting == nil {
			s.host.waiting = make(map[chan error]bool)
		}
		s.host.waiting[done] = true
		s.tick.Reset(0)
		return nil
	})
	if err != nil {
		return h, err
	}
	defer s.do(context.WithoutCancel(ctx), func() { delete(s.host.waiting, done) })
	select {
	case err = <-done:
	case <-ctx.Done():
		err = path.ErrEnded
	case <-s.ended:
		err = path.ErrEnded
	}
	if err != nil {
		return h, err
	}
	err = s.run1(ctx, func() error { h, err = s.hostState(); return err })
	return h, err
}

// lookHost answers the waiting clients when no connection is open any more.
func (s *Shim) lookHost(now time.Time) {
	if len(s.host.waiting) == 0 || now.Sub(s.host.drained) < frontTime || now.Sub(s.host.counted) < hostCountEvery {
		return
	}
	s.host.counted = now
	switch {
	case !s.recount(now):
		s.endHostWaits(&control.Error{Name: control.ErrUnsupported, Reason: path.ErrCannotCount.Error()}, false)
	case s.activity.open == 0:
		s.endHostWaits(nil, false)
	}
}

// endHostWaits answers all waiting clients with err, except those that continue to wait.
func (s *Shim) endHostWaits(err error, on bool) {
	if on {
		return
	}
	for done := range s.host.waiting {
		done <- err
		delete(s.host.waiting, done)
	}
}

// hostState is how the app is on this host. It fails after a restart of the shim, until PID 1 has
// told the states of the instances: they serve meanwhile.
func (s *Shim) hostState() (control.Host, error) {
	if s.waitingForStates() {
		return control.Host{}, &control.Error{Name: control.ErrEnding, Reason: "the shim does not know the instances yet"}
	}
	h := control.Host{App: string(s.options.App), Instances: len(s.instances), Connections: -1}
	all, up := 0, 0
	for _, b := range s.pool.Backends() {
		all += b.Weight
		if b.InRing() {
			up += b.Weight
			h.Up++
		}
	}
	if all > 0 {
		h.Weight = (100*up + all - 1) / all
	}
	if s.activity.counted {
		h.Connections = s.activity.open
	}
	if !s.host.drained.IsZero() {
		h.Drained = s.host.drained.UnixMicro()
	}
	switch {
	case s.closed:
		h.State = "maint"
	case h.Up == 0:
		h.State = "down"
	case h.Drained != 0:
		h.State = "drain"
	default:
		h.State = "up"
	}
	return h, nil
}

// hostNote is what the status line begins with while the host is drained.
func (s *Shim) hostNote() string {
	if s.host.drained.IsZero() {
		return ""
	}
	return fmt.Sprintf("drained (unitgen undrain %s); ", s.options.App)
}
