package shim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unitgen/unitgen/internal/control"
)

// A probe is over when it is accepted: it waits in the queue of the instance's listener until then. With TCP_DEFER_ACCEPT
// it would wait elsewhere, so that option is off while the instance is probed. A program that sets it meanwhile, or shuts
// the listener down and listens again, has its probe made anew.

// probeLimit bounds one probe: binding is done and the connection is to this host, so a millisecond is usual.
const probeLimit = 2 * time.Second

// acceptLook is how often the shim looks whether a starting instance has accepted its probe. The kernel tells nobody that
// a connection was accepted.
const acceptLook = 20 * time.Millisecond

// prober hands out the kernel's one probe, which is per address and shared by all starting instances.
type prober struct {
	free chan struct{} // holds one token while no probe is under way
}

func newProber() *prober {
	p := &prober{free: make(chan struct{}, 1)}
	p.free <- struct{}{}
	return p
}

// probe answers method Probe: from its first answer until the client hangs up, and for probeLimit at most, connection
// requests from that port reach the instance, which is not on the ring yet. Others wait for their turn meanwhile.
func (s *Shim) probe(ctx context.Context, r *control.Request) (any, error) {
	var p control.ProbeParameters
	if err := r.Decode(&p); err != nil {
		return nil, err
	}
	select {
	case <-s.prober.free:
	case <-ctx.Done():
		return nil, errEnded
	}
	defer func() { s.prober.free <- struct{}{} }()
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	var a *address
	if err := s.run1(ctx, func() (err error) { a, err = s.beginProbe(p); return err }); err != nil {
		return nil, err
	}
	defer s.do(context.WithoutCancel(ctx), func() {
		if err := a.group.EndProbe(); err != nil {
			s.log.Error("end probe, ignoring", "instance", p.Instance, "error", err)
		}
	})
	if err := r.Send(struct{}{}); err != nil {
		return nil, err
	}
	<-ctx.Done()
	return struct{}{}, nil
}

func (s *Shim) beginProbe(p control.ProbeParameters) (*address, error) {
	in := s.instances[p.Instance]
	if in == nil {
		return nil, &control.Error{Name: control.ErrNoSuchInstance, Reason: fmt.Sprintf("instance %d has not joined", p.Instance)}
	}
	for a := range in.listeners {
		if a.String() != p.Address {
			continue
		}
		in.probed = time.Now()
		s.mend(in, in.probed)
		if _, err := s.acceptAtOnce(in); err != nil {
			return nil, err
		}
		err := a.group.Probe(p.Instance, p.Port)
		if errors.Is(err, errors.ErrUnsupported) {
			err = &control.Error{Name: control.ErrUnsupported, Reason: err.Error()}
		}
		return a, err
	}
	return nil, &control.Error{Name: control.ErrInvalid, Reason: "the app has no address " + p.Address}
}

// accepted answers method Accepted when nothing waits at the instance's listeners: it has accepted its probes.
func (s *Shim) accepted(ctx context.Context, r *control.Request) (any, error) {
	var p control.Instance
	if err := r.Decode(&p); err != nil {
		return nil, err
	}
	look := time.NewTicker(acceptLook)
	defer look.Stop()
	for {
		var answer control.Accepted
		queued := 0
		err := s.run1(ctx, func() (err error) { queued, answer.Again, err = s.unaccepted(p.Instance); return err })
		if err != nil {
			return nil, err
		}
		if queued == 0 || answer.Again {
			return answer, nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil, errEnded
		}
	}
}

// unaccepted is how many connections wait at the listeners of an instance that is probed; again is as in control.Accepted. Where
// it is neither, the probes are over.
func (s *Shim) unaccepted(number int) (queued int, again bool, err error) {
	queued, err = s.queuedAt(number)
	if err != nil {
		return 0, false, err
	}
	in := s.instances[number]
	again = s.mend(in, time.Now())
	deferred, err := s.acceptAtOnce(in)
	if err != nil || deferred || again {
		return 0, true, err
	}
	if queued == 0 {
		s.acceptLater(in)
	}
	return queued, false, nil
}

// queuedAt is how many connections wait at an instance's listeners.
func (s *Shim) queuedAt(number int) (int, error) {
	in := s.instances[number]
	if in == nil {
		return 0, &control.Error{Name: control.ErrNoSuchInstance, Reason: fmt.Sprintf("instance %d has not joined", number)}
	}
	all := 0
	for a, l := range in.listeners {
		queued, err := a.queue(l.fd)
		if err != nil {
			return 0, err
		}
		all += queued
	}
	return all, nil
}
