package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/systemd"
)

// settingsOf reads the settings of an app of this machine.
func (c *command) settingsOf(name app.Name) (app.App, error) {
	text, err := c.site.Find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return app.App{}, c.noApp(name)
	}
	if err != nil {
		return app.App{}, err
	}
	a, err := app.ParseSettings(name, text)
	if errors.Is(err, app.ErrNoSettings) {
		return app.App{}, c.noApp(name)
	}
	if err != nil {
		return app.App{}, fault.With(err, "systemctl status "+string(name))
	}
	return a, nil
}

// dialApp reads the settings of the app that the command line names, and connects to the manager
// that runs it. The caller closes the manager.
func (c *command) dialApp(ctx context.Context) (app.App, *live.Manager, error) {
	name, err := c.appName()
	if err != nil {
		return app.App{}, nil, err
	}
	a, err := c.settingsOf(name)
	if err != nil {
		return a, nil, err
	}
	m, err := c.dial(ctx)
	return a, m, err
}

// dial connects to the manager that runs apps.
func (c *command) dial(ctx context.Context) (*live.Manager, error) {
	if !c.booted {
		return nil, fault.With(errors.New("systemd does not run here, so no app runs"), "unitgen list")
	}
	return live.Dial(ctx, c.live())
}

// act does what systemctl does by the same verb, and shows each instance meanwhile. It says the
// systemctl command first. Where systemctl returns when the first instance is ready, act waits for
// all of them.
func (c *command) act(ctx context.Context) error {
	a, m, err := c.dialApp(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	c.say("systemctl %s%s %s", m.UserOption(), c.options.verb, a.Name)
	defer c.progress.End()
	switch c.options.verb {
	case "start":
		return m.Start(ctx, a)
	case "restart":
		return m.Restart(ctx, a)
	case "stop":
		return m.Do(ctx, a, systemd.Stop, live.Interruption{})
	}
	if !c.env.talkTerminal || c.env.stdin == nil {
		return m.Do(ctx, a, systemd.Reload, live.Interruption{})
	}
	// The first Ctrl-C asks the user. The second ends the command, and systemd goes on.
	interrupted := ctx.Done()
	return m.Do(context.WithoutCancel(ctx), a, systemd.Reload, live.Interruption{Wanted: interrupted, Cancel: func() bool {
		c.env.stopSignals()
		return c.progress.Ask(func() bool { return c.confirm("Cancel the reload? Without an answer systemd goes on [y/N] ") })
	}})
}

// confirm asks for yes or no on the terminal.
func (c *command) confirm(question string) bool {
	fmt.Fprintf(c.env.stderr, "\n%s", question)
	answer, _ := bufio.NewReader(c.env.stdin).ReadString('\n') // the end of the input is no answer, which is no
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	}
	return false
}
