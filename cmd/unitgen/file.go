package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/regular"
	"github.com/unitgen/unitgen/templates"
)

// extension is what the name of a settings file ends in; what stands before it names the app.
const extension = ".unitgen"

// settingsFile is a .unitgen file whose settings have been taken over into the options.
type settingsFile struct {
	path  string
	lines map[string]int // the last line of each option that it sets, "command" for the command
	// given are the options that were given beside it, and win.
	given map[string]bool
}

// nameFromFile names the app of a file: "debian/shop.unitgen" is about app shop.
func nameFromFile(path string) (app.Name, error) {
	base, ok := strings.CutSuffix(filepath.Base(path), extension)
	if !ok {
		return "", inputf("unitgen app --file="+app.ShellWord(path), "the app's name is missing, as %q does not end in %q", path, extension)
	}
	return app.ParseName(base)
}

// readFile takes over the settings of --file=, each as if its option had been given; options that were given win. Relative
// paths in it count from its own directory, wherever unitgen is called. The file is the whole app: what it does not set
// has its default, whatever an app that exists had.
func (c *command) readFile() error {
	o := c.options
	text, err := regular.Read(c.absolute(o.file), app.MaxFile+1)
	if err != nil {
		return inputf("", "--file=%s cannot be read: %v", o.file, fault.WithoutPath(err))
	}
	settings, err := app.ParseFile(o.file, text)
	if err != nil {
		return err
	}
	c.file = &settingsFile{path: o.file, lines: make(map[string]int), given: o.given}
	o.given = make(map[string]bool)
	for option := range c.file.given {
		o.given[option] = true
	}
	var found []error
	for _, s := range settings {
		if err := c.take(s); err != nil {
			found = append(found, app.FileError(o.file, s.Number, err))
		}
	}
	if !o.hasCommand {
		found = append(found, inputf("", "%s: Command= is missing", o.file))
	}
	return errors.Join(found...)
}

// take sets the option of one setting.
func (c *command) take(s app.Line) error {
	o, f := c.options, c.file
	dir := filepath.Dir(c.absolute(o.file))
	switch {
	case s.Key == "Version" || f.given[s.Option]:
		return nil
	case s.Key == "Command":
		if o.hasCommand {
			return nil
		}
		f.lines["command"] = s.Number
		o.command, o.hasCommand, o.commandDir = s.Given, true, dir
		if o.output != "" && !filepath.IsAbs(s.Given[0]) {
			return inputf("", "Command= must begin with an absolute path in the files of a package, got %q", s.Given[0])
		}
		return nil
	}
	f.lines[s.Option], o.given[s.Option] = s.Number, true
	for _, value := range s.Given {
		value, err := optionValue(s.Setting, value, dir, o.output != "")
		if err == nil {
			err = o.set.Set(s.Option, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// optionValue is the value of a setting as its option takes it.
func optionValue(s *app.Setting, value, dir string, packaging bool) (string, error) {
	switch {
	case s.Option == "user-units":
		return strconv.FormatBool(app.Truth(value)), nil
	case s.Flag && app.Truth(value):
		return "yes", nil
	case s.Flag:
		return "no", nil
	case s.IsPath:
		path, optional := value, ""
		if s.Option == "env-file" && strings.HasPrefix(value, "-") {
			path, optional = value[1:], "-"
		}
		if packaging && !filepath.IsAbs(path) {
			return "", inputf("", "--%s= must be an absolute path in the files of a package, got %q", s.Option, value)
		}
		return optional + join(dir, path), nil
	}
	return value, nil
}

// before is the app that options change: the one on disk, or none where a file says all. The version that the units are
// written for is no matter of the file's, unless it says so.
func (c *command) before(d *plan.Disk) *app.App {
	if c.file == nil {
		return d.App
	}
	if d.App != nil && !c.options.given["systemd-version"] && d.App.SystemdVersion > 0 {
		c.options.give("systemd-version", strconv.Itoa(d.App.SystemdVersion))
	}
	return nil
}

// inFile says of each thing that is wrong with the app where in the file it comes from. What an option of the command line
// said stays in that option's words.
func (c *command) inFile(err error) error {
	if c.file == nil {
		return err
	}
	var found []error
	for _, part := range app.Parts(err) {
		var input *app.InputError
		var f *fault.Fault
		if errors.As(part, &f) || !errors.As(part, &input) {
			found = append(found, part)
			continue
		}
		about := aboutOption(input.Msg)
		line, known := c.file.lines[about]
		if known || app.SettingOf(about) != nil && !c.file.given[about] {
			part = app.FileError(c.file.path, line, input)
		}
		found = append(found, part)
	}
	return errors.Join(found...)
}

// aboutOption is the option that a message begins with, "command" for the command, which has none.
func aboutOption(message string) string {
	option, isOption := strings.CutPrefix(message, "--")
	if !isOption {
		return "command"
	}
	if end := strings.IndexAny(option, "= "); end >= 0 {
		option = option[:end]
	}
	return option
}

// checkFiles is the verb check: it says of every file what is wrong with it. What only the machine knows that the app
// will run on, such as whether its program is there, is not looked at.
func (c *command) checkFiles(ctx context.Context) error {
	var found []error
	for _, path := range append([]string{c.options.name}, c.options.args...) {
		one := &command{env: c.env, options: c.optionsFor(path), site: plan.Site{Packaging: true}}
		found = append(found, one.checkFile(ctx))
	}
	return errors.Join(found...)
}

// optionsFor are the options of check as they would be given with one file.
func (c *command) optionsFor(path string) *options {
	o := &options{given: map[string]bool{"file": true}}
	o.set = o.flags()
	o.file, o.userUnits = path, c.options.userUnits
	if c.options.given["systemd-version"] {
		o.give("systemd-version", c.options.text("systemd-version"))
	}
	return o
}

func (c *command) checkFile(ctx context.Context) error {
	err := c.readFile()
	name, nameErr := nameFromFile(c.options.file)
	if err != nil || nameErr != nil {
		return errors.Join(nameErr, err)
	}
	a, err := c.wanted(ctx, name, nil)
	if err != nil {
		return err
	}
	if _, err := templates.Render(a, templates.Paths{Lbshim: c.env.lbshim}); err != nil {
		return fmt.Errorf("%s: %w", c.options.file, err)
	}
	for _, warning := range a.Warnings() {
		c.say("%s: Note: %s.", c.options.file, app.InKeys(warning))
	}
	return nil
}
