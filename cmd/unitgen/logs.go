package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/view"
)

// logs prints the journal of an app or of one instance: messages of the balancer, the instances and
// PID 1 in the journal's order, each line with its unit. With arguments for journalctl, and with
// --json=, it runs journalctl itself instead.
func (c *command) logs(ctx context.Context) error {
	name, units, err := c.logUnits()
	if err != nil {
		return err
	}
	argv := []string{"journalctl"}
	if c.site.UserUnits {
		argv = append(argv, "--user")
	}
	for _, unit := range units {
		argv = append(argv, "--unit="+unit)
	}
	if c.options.follow {
		argv = append(argv, "--follow")
	}
	if c.options.since != "" {
		argv = append(argv, "--since="+c.options.since)
	}
	switch {
	case c.options.hasCommand:
		return c.env.exec(append(argv, c.options.command...))
	case c.options.json == "short":
		return c.env.exec(append(argv, "--output=json", "--no-pager"))
	case c.options.json == "pretty":
		return c.env.exec(append(argv, "--output=json-pretty", "--no-pager"))
	case !c.options.follow && c.options.since == "":
		argv = append(argv, "--lines="+logLines)
	}
	return c.interleave(ctx, name, append(argv, "--output=json", "--output-fields="+view.LogFields, "--no-pager"))
}

// logLines is how many lines are printed unless the user says since when: a journal may have
// millions.
const logLines = "100"

// logUnits returns the app that the command line names, and the units whose messages are printed.
func (c *command) logUnits() (app.Name, []string, error) {
	if c.options.name == "" {
		_, err := c.appName()
		return "", nil, err
	}
	word, number, one := strings.Cut(c.options.name, "@")
	name, err := app.ParseName(word)
	if err != nil {
		return "", nil, err
	}
	if !c.site.Has(name) {
		return "", nil, inputf("journalctl "+c.live().UserOption()+"-u "+name.Service(), "there is no app %q; its old messages may still be in the journal", name)
	}
	if !one {
		return name, []string{name.Service(), string(name) + ".socket", string(name) + "@*", name.JoinAll(), string(name) + "-join@*"}, nil
	}
	i, ok := app.ParseInstance(number)
	if !ok {
		return "", nil, inputf("unitgen logs "+app.ShellWord(word+"@1"), "the instance must be a number from 1 to %s, got %q", strconv.Itoa(app.MaxInstances), number)
	}
	return name, []string{name.Instance(i), name.InstanceSocket(i), name.Join(i)}, nil
}

// interleave runs journalctl and prints its entries as lines.
func (c *command) interleave(ctx context.Context, name app.Name, argv []string) error {
	journal := exec.CommandContext(ctx, argv[0], argv[1:]...)
	journal.Stderr = c.env.stderr
	out, err := journal.StdoutPipe()
	if err != nil {
		return err
	}
	if err := journal.Start(); err != nil {
		return err
	}
	readErr := view.Log{App: name, Colour: c.coloured(), Now: c.env.now}.Print(c.env.stdout, out)
	if readErr != nil {
		journal.Process.Kill() // nobody reads on
	}
	err = journal.Wait()
	if ctx.Err() != nil {
		return nil // that is how --follow ends
	}
	if _, ok := errors.AsType[*exec.ExitError](err); ok && readErr == nil {
		return fmt.Errorf("journalctl: %w", err)
	}
	return errors.Join(readErr)
}
