package main

import (
	"context"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/learn"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
)

// prepareLearned is prepare for a new app whose options leave something open: the address without
// --listen=, or the family of a port. It runs the program once to find out. Only --now starts
// anything.
func (c *command) prepareLearned(ctx context.Context) (*plan.Plan, *live.Manager, error) {
	o := c.options
	if o.now && !o.dryRun && !o.check && !c.request.Given("listen") && c.isNew() {
		c.guessed = true
		c.request.Give("listen", learn.Guess)
	}
	p, m, err := c.prepare(ctx)
	if err != nil || m == nil || p.Was != nil || !o.now {
		return p, m, err
	}
	if c.guessed && !p.App.BindAnswered() {
		m.Close()
		c.request.Give("listen")
		return c.prepare(ctx) // which says that the address is missing
	}
	l := learn.Learner{Manager: m, Say: c.say, Retype: c.retype}
	find := l.Family
	if c.guessed {
		find = l.Address
	}
	learned, err := find(ctx, p.App)
	if err == nil && learned == nil {
		return p, m, nil
	}
	m.Close()
	if err != nil {
		return nil, nil, err
	}
	c.guessed = false
	c.request.Give("listen", learned...)
	return c.prepare(ctx)
}

// isNew reports whether there is no app of that name yet.
func (c *command) isNew() bool {
	name, err := c.appName()
	if err != nil {
		return false
	}
	d, err := c.site.Read(name)
	return err == nil && d.App == nil
}

// retype returns the command line with further options, or with another command, "-- COMMAND".
func (c *command) retype(options string) string {
	args := c.env.args
	command := []string(nil)
	if i := slices.Index(args, "--"); i >= 0 {
		args, command = args[:i], args[i:]
	}
	line := "unitgen " + app.ShellWords(args) + " " + options
	if command != nil && !strings.HasPrefix(options, "-- ") {
		line += " " + app.ShellWords(command)
	}
	return line
}
