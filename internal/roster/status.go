package roster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/systemd"
	"github.com/unitgen/unitgen/internal/view"
)

// Status gathers the state of an app and of its instances: the enabled instances, and others that
// run. Rates are averages since the look before, if there was one.
func Status(ctx context.Context, m *live.Manager, a app.App, before *survey.Look) (*view.Status, *survey.Look, error) {
	balancer, err := loaded(ctx, m, a.Name.Service())
	if err != nil {
		return nil, nil, err
	}
	s := &view.Status{App: a.Name, State: balancer.ActiveState, Status: balancer.StatusText, Since: sinceOf(balancer),
		Listen: plan.ListenTexts(a.Listen), Path: a.DataPath(), Strategy: a.StrategyOrDefault(), Drained: m.DrainedSince(a.Name),
		Instances: []*view.Instance{}}
	look, err := lookAt(ctx, m, survey.Processes, []app.Name{a.Name})
	if err != nil {
		return nil, nil, err
	}
	seen := look.App(a.Name)
	if seen == nil {
		seen = &survey.App{Name: a.Name}
	} else {
		s.State, s.Rollout = seen.State, view.RolloutOf(*seen, look.At)
	}
	if seen.Answered {
		s.Shim = &seen.Status
	}
	explained := 0
	for _, in := range withDown(seen.Instances, m.Site.Instances(a.Name)) {
		line := s.Add(seen, in, look, before)
		if !has(seen.Instances, in.Number) {
			continue // it neither runs nor has failed
		}
		if err := addReason(ctx, m, a, in, line, &explained); err != nil {
			return nil, nil, err
		}
	}
	return s, look, nil
}

// loaded is the state of a unit, which is inactive if PID 1 has not loaded it. To ask about such a unit
// would load the whole app for each question.
func loaded(ctx context.Context, m *live.Manager, unit string) (systemd.UnitState, error) {
	listed, err := m.Conn.ListUnits(ctx, unit)
	if err != nil || len(listed) == 0 {
		return systemd.UnitState{Name: unit, ActiveState: "inactive"}, err
	}
	return m.Conn.Unit(ctx, unit)
}

// withDown adds the instances that are enabled on disk and that PID 1 does not know yet.
func withDown(seen []survey.Instance, enabled []int) []survey.Instance {
	all := slices.Clone(seen)
	for _, i := range enabled {
		if !has(seen, i) {
			all = append(all, survey.Instance{Number: i, State: "down", Open: -1})
		}
	}
	slices.SortFunc(all, func(a, b survey.Instance) int { return a.Number - b.Number })
	return all
}

func has(all []survey.Instance, number int) bool {
	return slices.ContainsFunc(all, func(in survey.Instance) bool { return in.Number == number })
}

// addReason adds the reason why an instance is not up, or not whole. It asks PID 1 about an instance
// that is not up. explained counts the reasons that were looked for.
func addReason(ctx context.Context, m *live.Manager, a app.App, in survey.Instance, s *view.Instance, explained *int) error {
	unit := a.Name.Instance(in.Number)
	if in.State == "up" || in.State == "stuck" {
		u := systemd.UnitState{Name: unit, ActiveState: "active", ControlGroup: in.Group, MainPID: in.PID}
		if r := live.Unanswered(a, u); r.What != "" {
			s.Reason, s.Hint = r.String(), r.Hint
		}
		return nil
	}
	u, err := m.Conn.Unit(ctx, unit)
	if err != nil {
		return err
	}
	s.Result = resultOf(u)
	if !live.Failing(u) || *explained >= explain.MaxReasons {
		return nil
	}
	*explained++
	r, err := m.Question(a.Name).Instance(ctx, in.Number)
	s.Reason, s.Hint = r.String(), r.Hint
	return err
}

func sinceOf(u systemd.UnitState) *time.Time {
	if u.ActiveState != "active" || u.ActiveEnter == 0 {
		return nil
	}
	t := u.Since()
	return &t
}

// resultOf returns how the last run ended, in systemd's words. It is empty if nothing was wrong.
func resultOf(u systemd.UnitState) string {
	switch {
	case u.Result == "success":
		return ""
	case u.Result == "exit-code" && u.ExecMainStatus != 0 && u.ExecMainCode == 1: // CLD_EXITED
		return fmt.Sprintf("exit-code %d", u.ExecMainStatus)
	}
	return u.Result
}
