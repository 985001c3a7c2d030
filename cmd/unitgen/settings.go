package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/program"
)

// appName is the app that the command line is about: the name, or the path of a program that names it.
func (c *command) appName() (app.Name, error) {
	o := c.options
	switch {
	case o.name == "" && o.file != "":
		return nameFromFile(o.file)
	case o.name == "" && o.hasCommand && len(o.command) > 0:
		return "", inputf("unitgen app -- "+app.ShellWords(o.command), "the app's name is missing")
	case o.name == "" && o.verb != "":
		return "", inputf("unitgen "+o.verb+" app", "the app's name is missing; unitgen list shows those that there are")
	case o.name == "":
		return "", inputf("unitgen app --instances=4 --listen=3000 --now -- ./app", "the app's name is missing")
	case strings.Contains(o.name, "/") && !o.hasCommand && o.verb != "remove" && o.verb != "status":
		return app.NameFromCommand(o.name)
	}
	return app.ParseName(o.name)
}

// wanted is the app as the command line wants it: was, or a new app for nil, with the options that were given. An empty
// value takes a setting back to its default, as an empty assignment does in a unit file. All errors are found in one go.
func (c *command) wanted(ctx context.Context, name app.Name, was *app.App) (app.App, error) {
	a := app.App{Name: name, UserUnits: c.options.userUnits}
	if was != nil {
		a = *was
	}
	var found []error
	unread := make(map[string]bool) // what is missing in a, as it could not be read
	note := func(option string, err error) {
		if err != nil {
			found = append(found, err)
			unread[option] = true
		}
	}
	note("command", c.setCommand(ctx, &a, was == nil))
	for _, s := range app.Table() {
		if given := c.options.settings[s.Option]; given != nil && c.options.given[s.Option] {
			values, err := c.read(s.Option, given.values)
			note(s.Option, errors.Join(err, s.Set(&a, values)))
		}
	}
	c.setKind(&a)
	c.setDirectory(&a, was == nil)
	for _, e := range app.InputErrors(a.Validate()) {
		about, _, _ := strings.Cut(strings.TrimPrefix(e.Msg, "--"), "=")
		if strings.HasPrefix(e.Msg, "the command") {
			about = "command"
		}
		if !unread[about] {
			found = append(found, e)
		}
	}
	return a, c.inFile(errors.Join(found...))
}

// read checks the values of an option that the machine has a say in, and makes them whole. Those with an error are left out.
func (c *command) read(option string, values []string) ([]string, error) {
	check := map[string]func(string) (string, error){
		"env-file": c.envFile, "working-directory": c.directory, "watch": c.watched, "reload-at": c.calendar,
	}[option]
	if check == nil {
		return values, nil
	}
	var found []error
	var whole []string
	for _, value := range values {
		var err error
		if value != "" {
			value, err = check(value)
		}
		whole, found = append(whole, value), append(found, err)
	}
	return whole, errors.Join(found...)
}

// setCommand takes over the command. Without one an app that exists keeps its own, and a new one is named after its
// program.
func (c *command) setCommand(ctx context.Context, a *app.App, isNew bool) error {
	o := c.options
	argv := o.command
	switch {
	case o.hasCommand && len(argv) == 0:
		return inputf("unitgen "+string(a.Name)+" -- ./app", "the command after \"--\" is empty")
	case !o.hasCommand && !isNew && !strings.Contains(o.name, "/"):
		return nil
	case !o.hasCommand:
		argv = []string{o.name}
	}
	path, err := c.resolve(argv[0])
	if err == nil && program.IsNode(path) && !c.site.Packaging {
		path, err = c.realNode(ctx, path)
	}
	if err != nil {
		if !o.hasCommand && !strings.Contains(o.name, "/") {
			hint := "unitgen " + string(a.Name) + " --listen=3000 -- COMMAND"
			if verb := verbHint(o.name); verb != "" && len(o.given) == 0 {
				hint = verb
			}
			return inputf(hint, "there is no app %q, and $PATH has no program of that name to make an app from", o.name)
		}
		return err
	}
	a.Command = append([]string{path}, argv[1:]...)
	return nil
}

// envFile reads --env-file=. A leading "-" allows the file to be missing, as in EnvironmentFile=.
func (c *command) envFile(text string) (string, error) {
	file, optional := strings.CutPrefix(text, "-")
	if file == "" {
		return "", inputf("", "--env-file= must name a file, got %q", text)
	}
	file = c.absolute(file)
	if optional {
		return "-" + file, nil
	}
	if !c.site.Packaging {
		if st, err := os.Stat(file); err != nil || st.IsDir() {
			return "", inputf(app.ShellWord("--env-file=-"+text), "--env-file= must name a file that exists, got %q", text)
		}
	}
	return file, nil
}

// watched reads --watch=. A file that is not there would be watched for all the same, but a slip of the pen would never be
// noticed.
func (c *command) watched(text string) (string, error) {
	path := filepath.Clean(c.absolute(text))
	if c.site.Packaging {
		return path, nil
	}
	if _, err := os.Lstat(path); err != nil {
		return "", inputf("", "--watch= must name a file or directory that exists, got %q", text)
	}
	return path, nil
}

// calendar reads --reload-at=.
func (c *command) calendar(text string) (string, error) {
	if !c.env.isCalendar(text) {
		return "", inputf("systemd-analyze calendar 'Mon..Fri 04:00'", "--reload-at= must be a calendar expression (systemd.time(7)), got %q", text)
	}
	return text, nil
}

// absolute is path from the current directory, without a look at the disk.
func (c *command) absolute(path string) string { return join(c.env.cwd, path) }

// commandDir is the directory from which the relative names of the command count.
func (c *command) commandDir() string { return firstOf(c.options.commandDir, c.env.cwd) }

// join is path from dir, unless path is absolute or dir unknown.
func join(dir, path string) string {
	if filepath.IsAbs(path) || dir == "" {
		return path
	}
	return filepath.Join(dir, path)
}

// count is how many instances the app is to have: --instances= as a number, as "max", or as a difference to have.
func (c *command) count(have int, isNew bool) (int, error) {
	text := c.options.text("instances")
	switch {
	case !c.options.given["instances"] && isNew:
		return 1, nil
	case !c.options.given["instances"]:
		return have, nil
	case text == "max":
		return min(c.env.cpus(), app.MaxInstances), nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, inputf("--instances=4", "--instances= must be a number, +N, -N or max, got %q", text)
	}
	if strings.HasPrefix(text, "+") || strings.HasPrefix(text, "-") {
		if n += have; n < 1 || n > app.MaxInstances {
			return 0, inputf("", "--instances=%s of %d would be %d, and it must be between 1 and %d", text, have, n, app.MaxInstances)
		}
	}
	return n, app.CheckInstances(n)
}
