package main

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/account"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/wanted"
)

// appName returns the app that the command line is about: by its name, or by the path of a program.
func (c *command) appName() (app.Name, error) {
	o := c.options
	switch {
	case o.name == "" && o.file != "":
		return wanted.NameOf(o.file)
	case o.name == "" && c.request.Commanded && len(c.request.Command) > 0:
		return "", inputf("unitgen app -- "+app.ShellWords(c.request.Command), "the app's name is missing")
	case o.name == "" && o.verb != "":
		return "", inputf("unitgen "+o.verb+" app", "the app's name is missing; unitgen list shows those that there are")
	case o.name == "":
		return "", inputf("unitgen app --instances=4 --listen=3000 --now -- ./app", "the app's name is missing")
	case strings.Contains(o.name, "/") && !c.request.Commanded && o.verb != "remove" && o.verb != "status":
		return app.NameFromCommand(o.name)
	}
	return app.ParseName(o.name)
}

// newRequest returns what the options ask for.
func (c *command) newRequest() *wanted.Request {
	o := c.options
	r := &wanted.Request{
		Machine: wanted.Machine{Dir: c.env.cwd, Path: c.env.getenv("PATH"), Accounts: c.accounts(), CPUs: c.env.cpus, Node: c.env.nodePath,
			Calendar: c.env.isCalendar, Verify: c.env.verify},
		Word: o.name, Command: o.command, Commanded: o.hasCommand, Values: make(map[string][]string), UserUnits: o.userUnits,
		Absolute: o.output != "",
	}
	if len(o.given) == 0 {
		r.Otherwise = verbHint(o.name)
	}
	for option, given := range o.settings {
		if o.given[option] {
			r.Give(option, given.values...)
		}
	}
	if o.given["user-units"] {
		r.Give("user-units", strconv.FormatBool(o.userUnits))
	}
	return r
}

// accounts returns the users of this machine.
func (c *command) accounts() account.Book {
	return account.Book{Root: c.env.root, Getent: c.env.getent}
}

// checkFiles reports what is wrong with each file that the verb check names.
func (c *command) checkFiles(ctx context.Context) error {
	var found []error
	for _, path := range append([]string{c.options.name}, c.options.args...) {
		r := c.newRequest()
		r.Site = plan.Site{Packaging: true, Lbshim: c.env.lbshim}
		a, err := r.CheckFile(ctx, path)
		if err != nil {
			found = append(found, err)
			continue
		}
		for _, warning := range a.Warnings() {
			c.say("%s: Note: %s.", path, app.InKeys(warning))
		}
	}
	return errors.Join(found...)
}

// absolute returns a path as seen from the current directory. It does not look at the disk.
func (c *command) absolute(path string) string { return wanted.Join(c.env.cwd, path) }
