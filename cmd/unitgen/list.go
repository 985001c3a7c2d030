package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/view"
)

// list prints the apps whose units are on this machine, whoever installed them.
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

// listOnce prints the list as it is now. Rates are averages since the look before, if there was
// one.
func (c *command) listOnce(ctx context.Context, m *live.Manager, before *survey.Look) (*survey.Look, error) {
	apps, err := c.findApps()
	if err != nil {
		return nil, err
	}
	look, err := c.fill(ctx, m, apps, before)
	if err != nil {
		return nil, err
	}
	view.Sort(apps, c.options.sort)
	if c.options.json != "off" {
		return look, c.printJSON(apps)
	}
	if err := view.PrintApps(c.env.stdout, apps, c.style()); err != nil {
		return nil, err
	}
	switch {
	case c.options.noLegend:
	case len(apps) == 0:
		fmt.Fprintln(c.env.stdout, view.Counted(0, "app")+".")
		if !c.options.given["watch"] {
			c.say("Make one of a program with: unitgen APP --instances=4 --now -- COMMAND")
		}
	case c.env.terminal:
		fmt.Fprintf(c.env.stdout, "\n%s. \"unitgen status APP\" shows one.\n", view.Counted(len(apps), "app"))
	}
	return look, nil
}

// fill looks at apps, and takes over what it has seen of them. Nothing is seen without a manager.
func (c *command) fill(ctx context.Context, m *live.Manager, apps []*view.App, before *survey.Look) (*survey.Look, error) {
	look := &survey.Look{At: c.env.now()}
	if m == nil || len(apps) == 0 {
		return look, nil
	}
	source := c.source(survey.Starts)
	for _, a := range apps {
		source.Apps = append(source.Apps, a.App)
	}
	var err error
	if look.Apps, err = source.Look(ctx, m.Conn); err != nil {
		return nil, err
	}
	look.At = c.env.now()
	for _, a := range apps {
		a.Fill(look, before)
	}
	return look, nil
}

// findApps describes the apps of this machine. An app whose settings cannot be read is in the list
// too: it may be running.
func (c *command) findApps() ([]*view.App, error) {
	found, err := c.site.Apps()
	if err != nil {
		return nil, err
	}
	apps := []*view.App{} // "[]" as JSON
	for _, f := range found {
		if f.App == nil {
			apps = append(apps, &view.App{App: f.Name, Listen: []string{}, State: "unreadable"})
			continue
		}
		apps = append(apps, &view.App{App: f.Name, Instances: len(c.site.Instances(f.Name)), Listen: plan.ListenTexts(f.App.Listen), Path: f.App.DataPath()})
	}
	return apps, nil
}

// source says what list and status look at.
func (c *command) source(depth survey.Depth) *survey.Source {
	return &survey.Source{RuntimeDir: c.live().RuntimeDir(), Depth: depth, Log: slog.New(slog.DiscardHandler), Ask: c.ask()}
}

// ask returns a function that asks the balancer of a running app. Only root may use the socket;
// other users get only what PID 1 knows.
func (c *command) ask() func(context.Context, app.Name) (control.Status, error) {
	if c.env.shimStatus == nil {
		return nil
	}
	return func(ctx context.Context, name app.Name) (control.Status, error) {
		return c.env.shimStatus(ctx, name.ControlPath(c.live().RuntimeDir()))
	}
}

// printJSON writes v as --json= asks: on one line, or indented.
func (c *command) printJSON(v any) error {
	e := json.NewEncoder(c.env.stdout)
	e.SetEscapeHTML(false)
	if c.options.json == "pretty" {
		e.SetIndent("", "\t")
	}
	return e.Encode(v)
}

// style is how tables are printed.
func (c *command) style() view.Style {
	return view.Style{Legend: !c.options.noLegend, Colour: c.coloured()}
}

// coloured reports whether states are printed in colour: on a terminal, unless NO_COLOR is set
// (no-color.org).
func (c *command) coloured() bool {
	return c.env.terminal && c.env.getenv("NO_COLOR") == "" && c.env.getenv("TERM") != "dumb"
}
