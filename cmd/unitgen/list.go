package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/survey"
)

// figures are what list says of an app, and status of an instance. Null is what is not known: nobody but root may ask the
// balancer, and a program that does not run has no figures.
type figures struct {
	CPUPercent           *float64   `json:"cpuPercent"` // 100 is one processor
	MemoryBytes          *int64     `json:"memoryBytes"`
	Connections          *int       `json:"connections"` // open
	ConnectionsPerSecond *float64   `json:"connectionsPerSecond"`
	ConnectionsTotal     *uint64    `json:"connectionsTotal"` // given
	Restarts             uint64     `json:"restarts"`
	Since                *time.Time `json:"since"`

	uptime time.Duration
}

// rolling is a rollout under way.
type rolling struct {
	Since time.Time `json:"since"`
	Text  string    `json:"text"` // in the balancer's words

	took time.Duration
}

// listed is one app of list.
type listed struct {
	App       app.Name `json:"app"`
	Instances int      `json:"instances"`
	Up        *int     `json:"up"` // null: the manager was not asked
	Listen    []string `json:"listen"`
	Path      app.Path `json:"path"`
	State     string   `json:"state"` // active, idle, inactive, failed, ...
	figures
	Rollout *rolling `json:"rollout"`
}

// list prints the apps whose units are on this machine, by whomever they were installed.
func (c *command) list(ctx context.Context) error {
	if c.booted {
		m, err := live.Dial(ctx, c.live())
		if err != nil {
			return err
		}
		defer m.Close()
		return c.watch(ctx, func(before *survey.Look) (*survey.Look, error) { return c.listOnce(ctx, m, before) })
	}
	return c.watch(ctx, func(*survey.Look) (*survey.Look, error) { return c.listOnce(ctx, nil, nil) })
}

// listOnce prints the list as it is now. Rates are those since the look before, if there was one.
func (c *command) listOnce(ctx context.Context, m *live.Manager, before *survey.Look) (*survey.Look, error) {
	apps, err := c.findApps()
	if err != nil {
		return nil, err
	}
	look := &survey.Look{At: c.env.now()}
	if m != nil && len(apps) > 0 {
		source := c.source(survey.Starts)
		for _, a := range apps {
			source.Apps = append(source.Apps, a.App)
		}
		if look.Apps, err = source.Look(ctx, m.Conn); err != nil {
			return nil, err
		}
		look.At = c.env.now()
		for _, a := range apps {
			a.fill(look, before)
		}
	}
	sortBy(apps, c.options.sort)
	if c.options.json != "off" {
		return look, c.printJSON(apps)
	}
	c.printList(apps)
	return look, nil
}

// source is what list and status look at.
func (c *command) source(depth survey.Depth) *survey.Source {
	return &survey.Source{RuntimeDir: c.live().RuntimeDir(), Depth: depth, Log: slog.New(slog.DiscardHandler), Ask: c.ask()}
}

// ask returns how to ask the balancer of an app that runs. The socket is root's: who may not ask gets what the manager knows.
func (c *command) ask() func(context.Context, app.Name) (control.Status, error) {
	if c.env.shimStatus == nil {
		return nil
	}
	return func(ctx context.Context, name app.Name) (status control.Status, err error) {
		answer, err := c.env.shimStatus(ctx, name.ControlPath(c.live().RuntimeDir()))
		if err == nil {
			err = json.Unmarshal(answer, &status)
		}
		return status, err
	}
}

// fill takes over what a look says of the app.
func (a *listed) fill(look, before *survey.Look) {
	up := 0
	a.Up = &up
	seen := look.App(a.App)
	if seen == nil {
		if a.State == "" {
			a.State = "inactive"
		}
		return
	}
	up = seen.Up()
	if a.State == "" {
		a.State = seen.State
	}
	a.figures = appFigures(*seen, look, before)
	a.Rollout = rollingOf(*seen, look.At)
}

func rollingOf(a survey.App, now time.Time) *rolling {
	if a.Rollouts.Running == 0 || !a.Runs() {
		return nil
	}
	text, _, _ := strings.Cut(a.Line, "; ")
	if text = strings.TrimLeft(strings.TrimPrefix(text, "rollout"), ": "); strings.Contains(text, "instances up") {
		text = ""
	}
	began := time.UnixMicro(a.Rollouts.Running)
	return &rolling{Since: began, Text: text, took: now.Sub(began)}
}

// appFigures are the sums of the instances.
func appFigures(a survey.App, look, before *survey.Look) figures {
	var f figures
	var memory int64
	var open int
	var given uint64
	known, counted := false, a.Answered
	for _, in := range a.Instances {
		if in.Usage.HasMemory {
			memory, known = memory+int64(in.Usage.Memory), true
		}
		if in.Open < 0 && in.State != "down" {
			counted = false
		}
		open += max(0, in.Open)
		given += in.Steered
		f.Restarts += in.Restarts
	}
	if known {
		f.MemoryBytes = &memory
	}
	if counted {
		f.Connections = &open
	}
	if a.Answered {
		f.ConnectionsTotal = &given
	}
	f.rate(look.AppRate(before, a))
	if a.Runs() && !a.Opened.IsZero() {
		f.began(a.Opened, look.At)
	}
	return f
}

func instanceFigures(a survey.App, in survey.Instance, look, before *survey.Look) figures {
	f := figures{Restarts: in.Restarts}
	if in.Usage.HasMemory {
		memory := int64(in.Usage.Memory)
		f.MemoryBytes = &memory
	}
	if a.Answered {
		f.ConnectionsTotal = &in.Steered
		if in.Open >= 0 {
			f.Connections = &in.Open
		}
	}
	f.rate(look.Rate(before, a, in))
	if !in.Started.IsZero() {
		f.began(in.Started, look.At)
	}
	return f
}

func (f *figures) rate(r survey.Rate) {
	if r.HasCPU {
		percent := rounded(r.CPU * 100)
		f.CPUPercent = &percent
	}
	if r.HasConnections {
		perSecond := rounded(r.Connections)
		f.ConnectionsPerSecond = &perSecond
	}
}

func (f *figures) began(since, now time.Time) {
	f.Since, f.uptime = &since, max(0, now.Sub(since))
}

func (c *command) printList(apps []*listed) {
	t := table{
		columns: append([]string{"APP", "STATE", "INSTANCES"}, append(figureColumns(), "LISTEN", "PATH", "ROLLOUT")...),
		right:   figureTable(), quiet: quietColumns(),
	}
	t.right["INSTANCES"] = true
	for _, a := range apps {
		instances := fmt.Sprint(a.Instances)
		if a.Up != nil {
			instances = fmt.Sprintf("%d/%d", *a.Up, a.Instances)
		}
		rollout := ""
		if a.Rollout != nil {
			rollout = strings.TrimSpace(a.Rollout.Text + " for " + span(a.Rollout.took))
		}
		row := append([]cell{{text: string(a.App)}, {a.State, stateColour(a.State)}, {text: instances}}, a.cells()...)
		t.rows = append(t.rows, append(row, cell{text: strings.Join(a.Listen, ",")}, cell{text: string(a.Path)}, cell{text: rollout}))
	}
	if len(t.rows) > 0 {
		t.print(c.env.stdout, choose(!c.options.noLegend), c.coloured())
	}
	if !c.options.noLegend && c.env.terminal {
		fmt.Fprintf(c.env.stdout, "\n%s. \"unitgen status APP\" shows one.\n", counted(len(apps), "app"))
	}
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

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
