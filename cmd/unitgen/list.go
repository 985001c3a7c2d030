package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/roster"
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

// listOnce prints the list as it is now. Without a manager, nothing is known of what runs.
func (c *command) listOnce(ctx context.Context, m *live.Manager, before *survey.Look) (*survey.Look, error) {
	apps, err := roster.Apps(c.site)
	if err != nil {
		return nil, err
	}
	var look *survey.Look
	if m != nil {
		if look, err = roster.Fill(ctx, m, apps, before); err != nil {
			return nil, err
		}
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
