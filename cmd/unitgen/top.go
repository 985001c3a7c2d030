package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/roster"
	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/top"
	"github.com/unitgen/unitgen/internal/view"
)

const (
	topDefault = "1" // seconds between two looks, without --watch=
	// lookTimeout ends a look at a manager that does not answer. The next one connects again.
	lookTimeout = 10 * time.Second
)

// top shows apps on the whole terminal until somebody quits: those that are named, or all.
func (c *command) top(ctx context.Context) error {
	if term := c.env.getenv("TERM"); !c.env.terminal || c.env.stdin == nil || term == "" || term == "dumb" {
		return inputf("", "top needs a terminal; elsewhere use \"unitgen list --watch\"")
	}
	names, err := c.topNames()
	if err != nil {
		return err
	}
	m, err := c.dial(ctx)
	if err != nil {
		return err
	}
	every, err := watchSpan(cmp.Or(c.options.text("watch"), topDefault))
	if err != nil {
		return err
	}
	debug.SetGCPercent(100) // it may run for days
	// Ctrl-C ends a view of the journal, but not the screen behind it. So the screen's context must
	// outlive the one that Ctrl-C ends.
	ctx, stop := c.env.signals(context.WithoutCancel(ctx), syscall.SIGTERM)
	defer stop()
	l := &looker{c, names, m}
	defer l.close()
	return top.Run(ctx, c.env.stdin, c.env.stdout, top.World{
		Look: l.look,
		Do:   c.doAction,
		Logs: c.followJournal,
		Now:  c.env.now,
	}, top.Options{
		Every: every, Sort: c.options.sort, CPUs: c.env.cpus(), Colour: c.coloured(), ASCII: !top.IsUTF8(c.env.getenv), Environment: c.env.environment(),
	})
}

// topNames are the apps that the command line names; nil for all.
func (c *command) topNames() ([]app.Name, error) {
	if c.options.name == "" {
		return nil, nil
	}
	var names []app.Name
	var errs []error
	for _, word := range append([]string{c.options.name}, c.options.args...) {
		name, err := app.ParseName(word)
		if err == nil && !c.site.Has(name) {
			err = c.noApp(name)
		}
		names, errs = append(names, name), append(errs, err)
	}
	return names, errors.Join(errs...)
}

// looker looks at apps, one look at a time. It connects again after a failure.
type looker struct {
	c     *command
	names []app.Name // nil: all
	m     *live.Manager
}

func (l *looker) close() { l.m.Close() }

func (l *looker) look(ctx context.Context, before *survey.Look) (p top.Picture, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if p.Apps, err = roster.Apps(l.c.site); err != nil {
		return p, err
	}
	if l.names != nil {
		p.Apps = slices.DeleteFunc(p.Apps, func(a *view.App) bool { return !slices.Contains(l.names, a.App) })
	}
	if l.m == nil {
		if l.m, err = l.c.dial(ctx); err != nil {
			return p, err
		}
	}
	if p.Look, err = roster.Fill(ctx, l.m, p.Apps, before); err != nil {
		l.m.Close()
		l.m = nil
	}
	return p, err
}

// doAction runs the command that a key of top stands for. Each line of the command's output is a
// step.
func (c *command) doAction(ctx context.Context, a top.Action, tell func(string)) error {
	if a.Target.Instance != 0 {
		return c.restartInstance(ctx, a.Target, tell)
	}
	words := []string{string(a.Verb), string(a.Target.App)}
	if a.Count != "" {
		words = append(words, a.Count)
	}
	return c.another(ctx, io.Discard, &top.Lines{Tell: tell}, words...)
}

func (c *command) restartInstance(ctx context.Context, t top.Target, tell func(string)) error {
	a, err := c.settingsOf(t.App)
	if err != nil {
		return err
	}
	options := c.live()
	options.Tell = func(e live.Event) { tell(e.String()) }
	m, err := live.Dial(ctx, options)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.RestartInstance(ctx, a, t.Instance)
}

// followJournal is "unitgen logs --follow", which Ctrl-C ends.
func (c *command) followJournal(ctx context.Context, t top.Target) error {
	ctx, stop := c.env.signals(ctx, os.Interrupt)
	defer stop()
	fmt.Fprintln(c.env.stderr, "The journal of "+t.String()+". Ctrl-C goes back to unitgen top.")
	return c.another(ctx, c.env.stdout, c.env.stderr, "logs", "--follow", t.String())
}

// another runs unitgen once more in this process, for the same manager and without a terminal for
// questions.
func (c *command) another(ctx context.Context, stdout, stderr io.Writer, words ...string) error {
	if c.site.UserUnits {
		words = append(words, "--user-units")
	}
	e := *c.env
	e.args, e.stdout, e.stderr, e.stdin, e.talkTerminal = words, stdout, stderr, nil, false
	e.terminal = e.terminal && stdout == c.env.stdout
	_, err := newCommand(&e).execute(ctx)
	return err
}
