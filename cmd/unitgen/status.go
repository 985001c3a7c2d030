package main

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

// status prints one app: what PID 1 knows, and what the balancer says if the caller may ask it.
func (c *command) status(ctx context.Context) error {
	a, m, err := c.dialApp(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	return c.watch(ctx, func(before *survey.Look) (*survey.Look, error) {
		s, look, err := c.show(ctx, m, a, before)
		if err != nil {
			return nil, err
		}
		view.Sort(s.Instances, c.options.sort)
		if c.options.json != "off" {
			return look, c.printJSON(s)
		}
		return look, s.Print(c.env.stdout, c.style(), c.env.now())
	})
}

// show gathers the state of an app and of its instances: the enabled instances, and others that
// run.
func (c *command) show(ctx context.Context, m *live.Manager, a app.App, before *survey.Look) (*view.Status, *survey.Look, error) {
	balancer, err := m.Conn.Unit(ctx, a.Name.Service())
	if err != nil {
		return nil, nil, err
	}
	s := &view.Status{App: a.Name, State: balancer.ActiveState, Status: balancer.StatusText, Since: sinceOf(balancer),
		Listen: plan.ListenTexts(a.Listen), Path: a.DataPath(), Strategy: a.StrategyOrDefault(), Drained: m.DrainedSince(a.Name),
		Instances: []*view.Instance{}}
	source := c.source(survey.Processes)
	source.Apps = []app.Name{a.Name}
	look := &survey.Look{}
	if look.Apps, err = source.Look(ctx, m.Conn); err != nil {
		return nil, nil, err
	}
	look.At = c.env.now()
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
	for _, in := range withDown(seen.Instances, c.site.Instances(a.Name)) {
		if err := c.explain(ctx, m, a, in, s.Add(seen, in, look, before), &explained); err != nil {
			return nil, nil, err
		}
	}
	return s, look, nil
}

// withDown adds the instances that are enabled on disk and that PID 1 does not know yet.
func withDown(seen []survey.Instance, enabled []int) []survey.Instance {
	all := slices.Clone(seen)
	for _, i := range enabled {
		if !slices.ContainsFunc(seen, func(in survey.Instance) bool { return in.Number == i }) {
			all = append(all, survey.Instance{Number: i, State: "down", Open: -1})
		}
	}
	slices.SortFunc(all, func(a, b survey.Instance) int { return a.Number - b.Number })
	return all
}

// explain adds the reason why an instance is not up, or not whole. It asks PID 1 about an instance
// that is not up. explained counts the reasons that were looked for.
func (c *command) explain(ctx context.Context, m *live.Manager, a app.App, in survey.Instance, s *view.Instance, explained *int) error {
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
