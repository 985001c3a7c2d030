package shim

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// configure answers method Configure.
func (s *Shim) configure(ctx context.Context, r *control.Request) error {
	var settings control.Settings
	if err := r.Decode(&settings); err != nil {
		return err
	}
	return s.run1(ctx, func() error { return s.apply(settings) })
}

// apply takes over settings, all or none.
func (s *Shim) apply(n control.Settings) error {
	if err := checkWeights(n.Weights); err != nil {
		return err
	}
	if err := s.changePath(n); err != nil {
		return err
	}
	if err := s.weigh(n.Weights); err != nil {
		return err
	}
	if n.SlowStart != s.options.SlowStart {
		s.pool.SlowStart(n.SlowStart)
	}
	if n.IdleExit != s.options.IdleExit {
		s.activity.last = time.Now() // idleness is measured from now on
	}
	was := s.options.Settings
	s.options.Settings = n
	s.channels.Configure(n)
	if !reflect.DeepEqual(n, was) {
		s.log.Info("settings changed", "strategy", string(n.Strategy), "drain_timeout", n.DrainTimeout.String(),
			"idle_exit", n.IdleExit.String(), "slow_start", n.SlowStart.String(), "weights", fmt.Sprint(n.Weights))
	}
	return nil
}

// changePath has the path take over what concerns it.
func (s *Shim) changePath(n control.Settings) error {
	err := s.path.Configure(path.Settings{Strategy: n.Strategy, MaxConnections: n.MaxConnections})
	var impossible *path.Impossible
	if errors.As(err, &impossible) {
		return &control.Error{Name: control.ErrUnsupported, Reason: impossible.Reason}
	}
	if err != nil || n.Strategy == s.options.Strategy {
		return err
	}
	s.ring = nil // settle makes another one
	return s.pool.SetStrategy(n.Strategy)
}

func checkWeights(weights []int) error {
	for _, w := range weights {
		if w < balance.MinWeight || w > balance.MaxWeight {
			return &control.Error{Name: control.ErrUnsupported, Reason: fmt.Sprintf("weight must be between %d and %d, got %d",
				balance.MinWeight, balance.MaxWeight, w)}
		}
	}
	return nil
}

// weigh gives every instance its share of weights; the ring follows when the loop settles.
func (s *Shim) weigh(weights []int) error {
	for number := range s.instances {
		if err := s.pool.Weigh(number, weight(weights, number)); err != nil {
			return err
		}
	}
	return nil
}

// takeNote answers method Note: a line of a rollout, which systemctl status shows before the shim's
// own until an empty one takes it back.
func (s *Shim) takeNote(ctx context.Context, r *control.Request) error {
	var p control.Note
	if err := r.Decode(&p); err != nil {
		return err
	}
	return s.run1(ctx, func() error {
		s.note = p.Text
		// Whatever the pace, and before the answer: whoever has waited for the reload looks at it next.
		s.tellStatus(s.line(time.Now()))
		return nil
	})
}
