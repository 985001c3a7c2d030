package steered

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/sock"
)

// A probe is over when it is accepted: it waits in the queue of the instance's listener until then.
// With TCP_DEFER_ACCEPT it would wait elsewhere, so that option is off while the instance is
// probed. A program that sets it meanwhile, or shuts the listener down and listens again, is probed
// again.

// probeLimit bounds one probe: binding is done and the connection is to this host, so a millisecond
// is usual.
const probeLimit = 2 * time.Second

// acceptLook is how often the path looks whether a starting instance has accepted its probe. The
// kernel tells nobody that a connection was accepted.
const acceptLook = 20 * time.Millisecond

// Handle is of path.Path.
func (p *Path) Handle(ctx context.Context, loop path.Loop, r *control.Request) (any, error) {
	sock.CloseAll(r.FDs) // nobody who calls these methods sends any
	switch r.Method {
	case control.MethodProbe:
		return p.probe(ctx, loop, r)
	case control.MethodAccepted:
		return p.accepted(ctx, loop, r)
	case control.MethodConnect, control.MethodDeliver:
		return nil, &control.Error{Name: control.ErrUnsupported,
			Reason: fmt.Sprintf("the app is on the steer path (systemctl restart %s)", p.options.App)}
	}
	return nil, path.NoMethod(r)
}

// probe answers method Probe: from its first answer until the client hangs up, and for probeLimit
// at most, connection requests from that port reach the instance, which is not on the ring yet. The
// kernel's one probe of an address is shared by all starting instances: others wait for their turn
// meanwhile.
func (p *Path) probe(ctx context.Context, loop path.Loop, r *control.Request) (any, error) {
	var asked control.ProbeParameters
	if err := r.Decode(&asked); err != nil {
		return nil, err
	}
	select {
	case <-p.turn:
	case <-ctx.Done():
		return nil, path.ErrEnded
	}
	defer func() { p.turn <- struct{}{} }()
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	var a *address
	if err := loop.Do(ctx, func() (err error) { a, err = p.beginProbe(loop, asked, time.Now()); return err }); err != nil {
		return nil, err
	}
	defer loop.Do(context.WithoutCancel(ctx), func() error {
		if err := a.group.EndProbe(); err != nil {
			p.log.Error("end probe, ignoring", "instance", asked.Instance, "error", err)
		}
		return nil
	})
	if err := r.Send(struct{}{}); err != nil {
		return nil, err
	}
	<-ctx.Done()
	return struct{}{}, nil
}

func (p *Path) beginProbe(loop path.Loop, asked control.ProbeParameters, now time.Time) (*address, error) {
	m := p.members[asked.Instance]
	if m == nil {
		return nil, path.NotJoined(asked.Instance)
	}
	for a := range m.listeners {
		if a.String() != asked.Address {
			continue
		}
		loop.Probed(asked.Instance, now)
		loop.Harmed(p.mend(m))
		if _, err := m.acceptAtOnce(); err != nil {
			return nil, err
		}
		err := a.group.Probe(asked.Instance, asked.Port)
		if errors.Is(err, errors.ErrUnsupported) {
			err = &control.Error{Name: control.ErrUnsupported, Reason: err.Error()}
		}
		return a, err
	}
	return nil, &control.Error{Name: control.ErrInvalid, Reason: "the app has no address " + asked.Address}
}

// accepted answers method Accepted when nothing waits at the instance's listeners: it has accepted
// its probes.
func (p *Path) accepted(ctx context.Context, loop path.Loop, r *control.Request) (any, error) {
	var asked control.Instance
	if err := r.Decode(&asked); err != nil {
		return nil, err
	}
	look := time.NewTicker(acceptLook)
	defer look.Stop()
	for {
		var answer control.Accepted
		queued := 0
		err := loop.Do(ctx, func() (err error) { queued, answer.Again, err = p.unaccepted(loop, asked.Instance); return err })
		if err != nil {
			return nil, err
		}
		if queued == 0 || answer.Again {
			return answer, nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil, path.ErrEnded
		}
	}
}

// unaccepted is how many connections wait at the listeners of an instance that is probed; again is
// as in control.Accepted. Where it is neither, the probes are over.
func (p *Path) unaccepted(loop path.Loop, number int) (queued int, again bool, err error) {
	m := p.members[number]
	if m == nil {
		return 0, false, path.NotJoined(number)
	}
	if queued, err = m.queue(); err != nil {
		return 0, false, err
	}
	harms := p.mend(m)
	loop.Harmed(harms)
	deferred, err := m.acceptAtOnce()
	if err != nil || deferred || mended(harms) {
		return 0, true, err
	}
	if queued == 0 {
		p.acceptLater(m)
	}
	return queued, false, nil
}
