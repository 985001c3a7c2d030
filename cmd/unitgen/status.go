package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/systemd"
)

// shown is what status says of an app.
type shown struct {
	App       app.Name         `json:"app"`
	State     string           `json:"state"`
	Status    string           `json:"status,omitempty"` // the text of the shim
	Since     *time.Time       `json:"since"`
	Drained   *time.Time       `json:"drained,omitempty"` // since when unitgen drain is in force
	Listen    []string         `json:"listen"`
	Path      app.Path         `json:"path"`
	Strategy  balance.Strategy `json:"strategy"`
	Instances []shownInstance  `json:"instances"`
	Rollout   *rolling         `json:"rollout"`
	Shim      json.RawMessage  `json:"shim,omitempty"` // its own status, as lbshim defines it
}

// shownInstance is one instance of it. Since is when its program was started.
type shownInstance struct {
	Instance   string `json:"instance"`
	State      string `json:"state"`
	PID        int    `json:"pid"`
	Invocation string `json:"invocation"`     // systemd's identifier of the start, as in the journal
	Code       string `json:"code,omitempty"` // in a rollout: old or new
	figures
	Queued *int   `json:"queued"` // given and not accepted yet
	Result string `json:"result,omitempty"`
	Reason string `json:"reason,omitempty"` // why it is not up or not whole, as far as the caller may know
	Hint   string `json:"hint,omitempty"`   // what to type about that
}

func (i shownInstance) sortState() string    { return i.State }
func (i shownInstance) sortFigures() figures { return i.figures }

// status prints one app: what the manager knows, and what the shim says if it may be asked.
func (c *command) status(ctx context.Context) error {
	a, err := c.findApp()
	if err != nil {
		return err
	}
	m, err := live.Dial(ctx, c.live())
	if err != nil {
		return err
	}
	defer m.Close()
	return c.watch(ctx, func(before *survey.Look) (*survey.Look, error) {
		s, look, err := c.show(ctx, m, a, before)
		if err != nil {
			return nil, err
		}
		sortBy(s.Instances, c.options.sort)
		if c.options.json != "off" {
			return look, c.printJSON(s)
		}
		c.printStatus(s)
		return look, nil
	})
}

// show gathers the state of a and of its instances: those with a link, and those that run without one.
func (c *command) show(ctx context.Context, m *live.Manager, a app.App, before *survey.Look) (*shown, *survey.Look, error) {
	shim, err := m.Conn.Unit(ctx, a.Name.Service())
	if err != nil {
		return nil, nil, err
	}
	s := &shown{App: a.Name, State: shim.ActiveState, Status: shim.StatusText, Since: sinceOf(shim), Listen: plan.ListenTexts(a.Listen),
		Path: a.DataPath(), Strategy: a.StrategyOrDefault(), Drained: c.drainedSince(a.Name), Instances: []shownInstance{}}
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
		s.State, s.Rollout = seen.State, rollingOf(*seen, look.At)
	}
	if seen.Answered {
		if s.Shim, err = json.Marshal(seen.Status); err != nil {
			return nil, nil, err
		}
	}
	explained := 0
	for _, in := range withDown(seen.Instances, c.site.Instances(a.Name)) {
		shown, err := c.showInstance(ctx, m, a, in, &explained)
		if err != nil {
			return nil, nil, err
		}
		shown.figures = instanceFigures(*seen, in, look, before)
		if seen.Answered && in.Open >= 0 {
			shown.Queued = &in.Queued
		}
		if s.Rollout != nil && !in.Started.IsZero() {
			shown.Code = "old"
			if in.Started.After(s.Rollout.Since) {
				shown.Code = "new"
			}
		}
		s.Instances = append(s.Instances, shown)
	}
	return s, look, nil
}

// withDown adds the instances that are enabled on disk and that the manager does not know yet.
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

// showInstance says of one instance what has no figure. PID 1 is asked for more of one that is not up, and explained counts
// those whose reason was looked for.
func (c *command) showInstance(ctx context.Context, m *live.Manager, a app.App, in survey.Instance, explained *int) (shownInstance, error) {
	unit := a.Name.Instance(in.Number)
	s := shownInstance{Instance: strings.TrimSuffix(unit, ".service"), State: in.State, PID: in.PID, Invocation: in.Invocation}
	if in.State == "up" || in.State == "stuck" {
		u := systemd.UnitState{Name: unit, ActiveState: "active", ControlGroup: in.Group, MainPID: in.PID}
		if r := live.Unanswered(a, u); r.What != "" {
			s.Reason, s.Hint = r.String(), r.Hint
		}
		return s, nil
	}
	u, err := m.Conn.Unit(ctx, unit)
	if err != nil {
		return s, err
	}
	s.Result = resultOf(u)
	if live.Failing(u) && *explained < explain.MaxReasons {
		r, err := m.Question(a.Name).Instance(ctx, in.Number)
		if err != nil {
			return s, err
		}
		s.Reason, s.Hint = r.String(), r.Hint
		*explained++
	}
	return s, nil
}

func sinceOf(u systemd.UnitState) *time.Time {
	if u.ActiveState != "active" || u.ActiveEnter == 0 {
		return nil
	}
	t := u.Since()
	return &t
}

// resultOf is how the last run ended, in systemd's words; empty if nothing was wrong.
func resultOf(u systemd.UnitState) string {
	switch {
	case u.Result == "success":
		return ""
	case u.Result == "exit-code" && u.ExecMainStatus != 0 && u.ExecMainCode == 1: // CLD_EXITED
		return fmt.Sprintf("exit-code %d", u.ExecMainStatus)
	}
	return u.Result
}

func (c *command) printStatus(s *shown) {
	w := c.env.stdout
	up := 0
	t := table{
		columns: append([]string{"INSTANCE", "STATE", "CODE", "PID"}, append(figureColumns(), "QUEUED", "TOTAL", "RESULT")...),
		right:   figureTable(), quiet: quietColumns(),
	}
	for _, column := range []string{"PID", "QUEUED", "TOTAL"} {
		t.right[column] = true
	}
	for _, i := range s.Instances {
		var pid, queued, total string
		if i.PID != 0 {
			pid = strconv.Itoa(i.PID)
		}
		if i.State == "up" {
			up++
		}
		if i.Queued != nil {
			queued = strconv.Itoa(*i.Queued)
		}
		if i.ConnectionsTotal != nil {
			total = strconv.FormatUint(*i.ConnectionsTotal, 10)
		}
		row := append([]cell{{text: i.Instance}, {i.State, stateColour(i.State)}, {text: i.Code}, {text: pid}}, i.cells()...)
		t.rows = append(t.rows, append(row, cell{text: queued}, cell{text: total}, cell{text: i.Result}))
	}
	if !c.options.noLegend {
		c.printHeader(w, s, up)
	}
	t.print(w, choose(!c.options.noLegend), c.coloured())
	if !c.options.noLegend {
		printReasons(w, s.Instances)
	}
}

// printHeader prints what status says of the app as such.
func (c *command) printHeader(w io.Writer, s *shown, up int) {
	state := s.State
	if colour := stateColour(state); colour != "" && c.coloured() == yes {
		state = colour + state + plain
	}
	fmt.Fprintf(w, "%s: %s", s.App, state)
	if s.Since != nil {
		fmt.Fprintf(w, " since %s", c.ago(s.Since))
	}
	fmt.Fprintf(w, ", %d/%d instances up\n", up, len(s.Instances))
	path, strategy := s.fromShim().describe(s)
	fmt.Fprintf(w, "Listen: %s   Path: %s   Strategy: %s\n", strings.Join(s.Listen, " "), path, strategy)
	if s.Drained != nil {
		fmt.Fprintf(w, "Drained: since %s (unitgen undrain %s)\n", c.ago(s.Drained), s.App)
	}
	if s.Rollout != nil {
		fmt.Fprintf(w, "Rollout: %s\n", strings.TrimSpace(s.Rollout.Text+" for "+span(s.Rollout.took)))
	}
	if s.Status != "" {
		fmt.Fprintf(w, "Status: %s\n", s.Status)
	}
	fmt.Fprintln(w)
}

// printReasons prints why instances are not up, below the table.
func printReasons(w io.Writer, instances []shownInstance) {
	said := make(map[string]bool)
	for _, i := range instances {
		if i.Reason == "" || said[i.Reason] {
			continue
		}
		said[i.Reason] = true
		fmt.Fprintf(w, "\n%s: %s\n", i.Instance, i.Reason)
		if i.Hint != "" {
			fmt.Fprintf(w, "Hint: %s\n", i.Hint)
		}
	}
}

func (c *command) ago(t *time.Time) string {
	if t == nil {
		return ""
	}
	return span(max(0, c.env.now().Sub(*t)))
}
