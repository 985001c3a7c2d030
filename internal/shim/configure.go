package shim

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
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
	if err := s.changeStrategy(n.Strategy); err != nil {
		return err
	}
	if err := s.weigh(n.Weights); err != nil {
		return err
	}
	if n.SlowStart != s.options.SlowStart {
		s.pool.SlowStart(n.SlowStart)
	}
	if n.IdleExit != s.options.IdleExit {
		s.activity.last = time.Now() // idleness is measured anew
	}
	was := s.options
	s.options.Settings = n
	if s.handsOff() {
		s.handoff.Limit(n.MaxConnections)
	}
	if !reflect.DeepEqual(s.options, was) {
		s.log.Info("settings changed", "strategy", string(n.Strategy), "drain_timeout", n.DrainTimeout.String(),
			"idle_exit", n.IdleExit.String(), "slow_start", n.SlowStart.String(), "weights", fmt.Sprint(n.Weights))
	}
	return nil
}

func (s *Shim) changeStrategy(to app.Strategy) error {
	from := s.options.Strategy
	if to == from {
		return nil
	}
	if s.handsOff() {
		if err := s.pool.SetStrategy(ringStrategy(to)); err != nil {
			return err
		}
		s.strategy, s.ring = to, nil // settle gives the dispatcher both
		return nil
	}
	if to.CountsConnections() && !s.counting() {
		return &control.Error{Name: control.ErrUnsupported, Reason: fmt.Sprintf("strategy %s needs CAP_NET_ADMIN, "+
			"which a running process cannot get: systemctl restart %s", to, s.options.App)}
	}
	if to == app.SourceHash && !s.kernel.Distribution {
		return &control.Error{Name: control.ErrUnsupported, Reason: fmt.Sprintf("strategy %s needs eBPF: %s", to, s.kernel)}
	}
	if err := s.pool.SetStrategy(ringStrategy(to)); err != nil {
		return &control.Error{Name: control.ErrUnsupported, Reason: err.Error()}
	}
	for _, a := range s.addresses {
		if steerStrategies[s.strategy] == steerStrategies[to] {
			break
		}
		if err := a.ebpf.Pick(steerStrategies[to]); err != nil {
			return err
		}
	}
	s.strategy, s.ring = to, nil // settle makes the ring anew
	return nil
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

// takeNote answers method Note: a line of a rollout, which systemctl status shows before the shim's own until an empty one
// takes it back.
func (s *Shim) takeNote(ctx context.Context, r *control.Request) error {
	var p control.Note
	if err := r.Decode(&p); err != nil {
		return err
	}
	return s.run1(ctx, func() error { s.note = p.Text; return nil })
}
