package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/systemd"
)

// listed is one app of list.
type listed struct {
	App       app.Name `json:"app"`
	Instances int      `json:"instances"`
	Up        *int     `json:"up"` // null: the manager was not asked
	Listen    []string `json:"listen"`
	Path      app.Path `json:"path"`
	State     string   `json:"state"` // active, idle, inactive, failed, ...
}

// list prints the apps whose units are on this machine, by whomever they were installed.
func (c *command) list(ctx context.Context) error {
	apps, err := c.findApps()
	if err != nil {
		return err
	}
	if c.booted {
		m, err := live.Dial(ctx, c.live())
		if err != nil {
			return err
		}
		defer m.Close()
		if err := states(ctx, m, apps); err != nil {
			return err
		}
	}
	if c.options.json != "off" {
		return c.printJSON(apps)
	}
	t := table{columns: []string{"APP", "INSTANCES", "UP", "LISTEN", "PATH", "STATE"}, right: map[string]bool{"INSTANCES": true, "UP": true}}
	for _, a := range apps {
		up := ""
		if a.Up != nil {
			up = fmt.Sprint(*a.Up)
		}
		t.rows = append(t.rows, []cell{{text: string(a.App)}, {text: fmt.Sprint(a.Instances)}, {text: up},
			{text: strings.Join(a.Listen, ",")}, {text: string(a.Path)}, {a.State, stateColour(a.State)}})
	}
	if len(t.rows) > 0 {
		t.print(c.env.stdout, choose(!c.options.noLegend), c.coloured())
	}
	if !c.options.noLegend && c.env.terminal {
		fmt.Fprintf(c.env.stdout, "\n%s. \"unitgen status APP\" shows one.\n", counted(len(apps), "app"))
	}
	return nil
}

func stateColour(state string) string {
	switch state {
	case "active", "up":
		return green
	case "failed", "down", "stuck":
		return red
	case "activating", "reloading", "deactivating", "starting", "draining":
		return yellow
	}
	return ""
}

// findApps describes the apps of this machine. One whose settings cannot be read is listed all the same: it may be running.
func (c *command) findApps() ([]*listed, error) {
	found, err := c.site.Apps()
	if err != nil {
		return nil, err
	}
	apps := []*listed{} // "[]" as JSON
	for _, f := range found {
		if f.App == nil {
			apps = append(apps, &listed{App: f.Name, Listen: []string{}, State: "unreadable"})
			continue
		}
		apps = append(apps, &listed{App: f.Name, Instances: len(c.site.Instances(f.Name)), Listen: plan.ListenTexts(f.App.Listen), Path: f.App.DataPath()})
	}
	return apps, nil
}

// states asks the manager for the state of each app and how many of its instances are up.
func states(ctx context.Context, m *live.Manager, apps []*listed) error {
	for _, a := range apps {
		units, err := m.Conn.ListUnits(ctx, a.App.Service(), a.App.Socket(), string(a.App)+"@*.service")
		if err != nil {
			return err
		}
		up, open := 0, false
		state := "inactive"
		for _, u := range units {
			switch part, _ := a.App.ParseUnit(u.Name); part.Role {
			case app.RoleShim:
				state = u.ActiveState
			case app.RoleSocket:
				open = u.ActiveState == "active"
			case app.RoleInstance:
				if u.ActiveState == "active" {
					up++
				}
			}
		}
		if state == "inactive" && open {
			state = "idle"
		}
		if a.State == "" {
			a.State = state
		}
		a.Up = &up
	}
	return nil
}

// shown is what status says of an app.
type shown struct {
	App       app.Name         `json:"app"`
	State     string           `json:"state"`
	Status    string           `json:"status,omitempty"` // the shim's own words
	Since     *time.Time       `json:"since"`
	Drained   *time.Time       `json:"drained,omitempty"` // since when unitgen drain is in force
	Listen    []string         `json:"listen"`
	Path      app.Path         `json:"path"`
	Strategy  balance.Strategy `json:"strategy"`
	Instances []shownInstance  `json:"instances"`
	Shim      json.RawMessage  `json:"shim,omitempty"` // its own status, as lbshim defines it
}

// shownInstance is one instance of it.
type shownInstance struct {
	Instance string     `json:"instance"`
	State    string     `json:"state"`
	PID      int        `json:"pid"`
	Since    *time.Time `json:"since"`
	Restarts int        `json:"restarts"`
	Result   string     `json:"result,omitempty"`
	Reason   string     `json:"reason,omitempty"` // why it is not up or not whole, as far as the caller may know
	Hint     string     `json:"hint,omitempty"`   // what to type about that

	number int
}

// status prints one app: what the manager knows, and what the shim says if it may be asked.
func (c *command) status(ctx context.Context) error {
	name, err := c.appName()
	if err != nil {
		return err
	}
	text, err := c.site.Find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return c.noApp(name)
	}
	if err != nil {
		return err
	}
	a, err := app.ParseSettings(name, text)
	if errors.Is(err, app.ErrNoSettings) {
		return c.noApp(name)
	}
	if err != nil {
		return fault.With(err, "systemctl status "+string(name))
	}
	if !c.booted {
		return fault.With(errors.New("systemd does not run here, so no app runs"), "unitgen list")
	}
	m, err := live.Dial(ctx, c.live())
	if err != nil {
		return err
	}
	defer m.Close()
	s, err := c.show(ctx, m, a, c.site.Instances(name))
	if err != nil {
		return err
	}
	if c.options.json != "off" {
		return c.printJSON(s)
	}
	c.printStatus(s)
	return nil
}

// show gathers the state of a and of its instances: those with a link, and those that run without one.
func (c *command) show(ctx context.Context, m *live.Manager, a app.App, instances []int) (*shown, error) {
	loaded, err := m.Conn.Instances(ctx, a.Name)
	if err != nil {
		return nil, err
	}
	for _, in := range loaded {
		if in.ActiveState != "inactive" && !slices.Contains(instances, in.Number) {
			instances = append(instances, in.Number)
		}
	}
	slices.Sort(instances)
	shim, err := m.Conn.Unit(ctx, a.Name.Service())
	if err != nil {
		return nil, err
	}
	s := &shown{App: a.Name, State: shim.ActiveState, Status: shim.StatusText, Since: sinceOf(shim), Listen: plan.ListenTexts(a.Listen),
		Path: a.DataPath(), Strategy: a.StrategyOrDefault(), Drained: c.drainedSince(a.Name), Instances: []shownInstance{}}
	state, err := m.State(ctx, a.Name)
	if err != nil {
		return nil, err
	}
	if state.Open && !state.Serving {
		s.State = "idle"
	}
	explained := 0
	for _, i := range instances {
		u, err := m.Conn.Unit(ctx, a.Name.Instance(i))
		if err != nil {
			return nil, err
		}
		instance := instanceOf(u)
		instance.number = i
		if live.Failing(u) && explained < explain.MaxReasons {
			r, err := m.Question(a.Name).Instance(ctx, i)
			if err != nil {
				return nil, err
			}
			instance.Reason, instance.Hint = r.String(), r.Hint
			explained++
		} else if r := live.Unanswered(a, u); r.What != "" {
			instance.Reason, instance.Hint = r.String(), r.Hint
		}
		s.Instances = append(s.Instances, instance)
	}
	if c.env.shimStatus != nil && state.Serving {
		// The socket is root's: who may not ask gets what the manager knows.
		if answer, err := c.env.shimStatus(ctx, a.Name.ControlPath(c.live().RuntimeDir())); err == nil {
			s.Shim = answer
		}
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

// instanceOf names the state of an instance in our words.
func instanceOf(u systemd.UnitState) shownInstance {
	s := shownInstance{Instance: strings.TrimSuffix(u.Name, ".service"), State: u.Balance().String(), PID: u.MainPID, Since: sinceOf(u), Restarts: u.NRestarts}
	if u.Result != "success" {
		s.Result = u.Result
		if u.Result == "exit-code" && u.ExecMainStatus != 0 && u.ExecMainCode == 1 { // CLD_EXITED
			s.Result = fmt.Sprintf("exit-code %d", u.ExecMainStatus)
		}
	}
	return s
}

func (c *command) printStatus(s *shown) {
	w := c.env.stdout
	up := 0
	t := table{columns: []string{"INSTANCE", "STATE", "PID", "CONNS", "QUEUED", "STEERED", "SINCE", "RESTARTS", "RESULT"},
		right: map[string]bool{"PID": true, "CONNS": true, "QUEUED": true, "STEERED": true, "RESTARTS": true}}
	shim := s.fromShim()
	for _, i := range s.Instances {
		pid := ""
		if i.PID != 0 {
			pid = fmt.Sprint(i.PID)
		}
		if i.State == "up" {
			up++
		}
		conns, queued, steered, state := shim.counts(i)
		t.rows = append(t.rows, []cell{{text: i.Instance}, {state, stateColour(state)}, {text: pid}, {text: conns}, {text: queued},
			{text: steered}, {text: c.ago(i.Since)}, {text: fmt.Sprint(i.Restarts)}, {text: i.Result}})
	}
	state := s.State
	if colour := stateColour(state); colour != "" && c.coloured() == yes {
		state = colour + state + plain
	}
	if !c.options.noLegend {
		fmt.Fprintf(w, "%s: %s", s.App, state)
		if s.Since != nil {
			fmt.Fprintf(w, " since %s", c.ago(s.Since))
		}
		fmt.Fprintf(w, ", %d/%d instances up\n", up, len(s.Instances))
		path, strategy := shim.describe(s)
		fmt.Fprintf(w, "Listen: %s   Path: %s   Strategy: %s\n", strings.Join(s.Listen, " "), path, strategy)
		if s.Drained != nil {
			fmt.Fprintf(w, "Drained: since %s (unitgen undrain %s)\n", c.ago(s.Drained), s.App)
		}
		if s.Status != "" {
			fmt.Fprintf(w, "Status: %s\n", s.Status)
		}
		fmt.Fprintln(w)
	}
	t.print(w, choose(!c.options.noLegend), c.coloured())
	if !c.options.noLegend {
		printReasons(w, s.Instances)
	}
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

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
