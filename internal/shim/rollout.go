package shim

import (
	"context"
	"errors"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// errCutOff ends a shim whose rollout was killed, so that PID 1 starts the next one. Its start
// removes the extra instances, which takes root, and nobody else of the app runs by then. A restart
// of the shim loses nothing.
var errCutOff = errors.New("the rollout was killed: the balancer restarts to clean up after it")

// rolling answers method Rolling, which a rollout calls as it begins and keeps waiting until it
// ends: a client that goes away before it has called Rolled was killed.
func (s *Shim) rolling(ctx context.Context, r *control.Request) (any, error) {
	pid, err := rolloutOf(r)
	if err != nil {
		return nil, err
	}
	if !s.do(ctx, func() { s.rollouts[pid] = true }) {
		return nil, path.ErrEnded
	}
	defer s.do(context.WithoutCancel(ctx), func() { s.cutOff = s.cutOff || s.rollouts[pid] })
	if r.More {
		if err := r.Send(struct{}{}); err != nil {
			return nil, err
		}
	}
	<-ctx.Done()
	return nil, path.ErrEnded
}

// rolled answers method Rolled: the rollout ends, and has left what it wants to leave. Whoever asks
// for the status when the reload has returned finds its extra instances no more.
func (s *Shim) rolled(ctx context.Context, r *control.Request) error {
	pid, err := rolloutOf(r)
	if err != nil {
		return err
	}
	return s.run1(ctx, func() error {
		delete(s.rollouts, pid)
		var down []*instance
		for _, in := range s.instances {
			if in.state() != balance.Up {
				down = append(down, in)
			}
		}
		s.dropGone(down...)
		return nil
	})
}

func rolloutOf(r *control.Request) (pid int, err error) {
	var p control.Rollout
	err = r.Decode(&p)
	return p.PID, err
}
