package shim

import (
	"context"
	"fmt"

	"github.com/unitgen/unitgen/internal/control"
)

// listening answers method Listening, with "more", each time that something has changed; the last answer, with nothing
// missing, comes when the instance asks for connections on the handoff path, and with "message" when its Node process has sent
// "ready".
func (s *Shim) listening(ctx context.Context, r *control.Request) (any, error) {
	var p control.ListeningParameters
	if err := r.Decode(&p); err != nil {
		return nil, err
	}
	for {
		var (
			now     control.Listening
			changed chan struct{}
		)
		if err := s.run1(ctx, func() (err error) {
			now, err = s.missing(p.Instance)
			now.Silent = p.Message && s.silent(p.Instance)
			changed = s.nodes.changed
			return err
		}); err != nil {
			return nil, err
		}
		if len(now.Missing) == 0 && !now.Silent {
			return now, nil
		}
		if r.More {
			if err := r.Send(now); err != nil {
				return nil, err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Shim) missing(number int) (control.Listening, error) {
	in := s.instances[number]
	if in == nil {
		return control.Listening{}, &control.Error{Name: control.ErrNoSuchInstance, Reason: fmt.Sprintf("instance %d has not joined", number)}
	}
	now := control.Listening{Refused: in.refused}
	if !s.handsOff() {
		return now, nil // its supervisor and a connection tell
	}
	if !s.attached(in) {
		if !s.handoff.Stat(number).Ready {
			now.Missing = []string{s.addresses[0].String()}
		}
		return now, nil
	}
	if in.node.unknown {
		return now, nil
	}
	for _, address := range in.node.worker.Missing(s.nodeAddresses()) {
		now.Missing = append(now.Missing, address.String())
	}
	return now, nil
}

// silent says whether the program of an instance has yet to send "ready".
func (s *Shim) silent(number int) bool {
	in := s.instances[number]
	return in == nil || !s.attached(in) || !in.node.ready && !(s.receives() && in.node.unknown)
}
