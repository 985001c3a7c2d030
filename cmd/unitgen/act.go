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

// findApp reads the settings of the app that the command line names.
func (c *command) findApp() (app.App, error) {
	name, err := c.appName()
	if err != nil {
		return app.App{}, err
	}
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
	if !c.booted {
		return app.App{}, fault.With(errors.New("systemd does not run here, so no app runs"), "unitgen list")
	}
	return a, nil
}

// act is what systemctl does by the same verb, shown instance by instance. The command is said first: it is all there is to it.
func (c *command) act(ctx context.Context) error {
	a, err := c.findApp()
	if err != nil {
		return err
	}
	m, err := live.Dial(ctx, c.live())
	if err != nil {
		return err
	}
	defer m.Close()
	c.say("%s", c.systemctl(c.options.verb+" "+string(a.Name)))
	verb := map[string]systemd.Verb{"start": systemd.Start, "stop": systemd.Stop, "restart": systemd.Restart, "reload": systemd.Reload}[c.options.verb]
	c.progress.plain = true
	defer c.progress.end()
	if verb == systemd.Start {
		return m.Start(ctx, a) // systemctl returns when the first instance is ready
	}
	if verb != systemd.Reload || !c.env.talkTerminal || c.env.stdin == nil {
		return m.Do(ctx, a, verb, live.Interruption{})
	}
	// Ctrl-C asks. The next one ends the command as ever: systemd goes on.
	interrupted := ctx.Done()
	return m.Do(context.WithoutCancel(ctx), a, verb, live.Interruption{Wanted: interrupted, Cancel: func() bool {
		c.env.stopSignals()
		return c.progress.ask(func() bool { return c.confirm("Cancel the reload? Without an answer systemd goes on [y/N] ") })
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
