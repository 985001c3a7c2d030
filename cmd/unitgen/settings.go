package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
)

// appName is the app that the command line is about: the name, or the path of a program that names it.
func (c *command) appName() (app.Name, error) {
	o := c.options
	switch {
	case o.name == "" && o.file != "":
		return nameFromFile(o.file)
	case o.name == "" && o.hasCommand && len(o.command) > 0:
		return "", inputf("unitgen app -- "+app.ShellWords(o.command), "the app's name is missing")
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
	o := c.options
	note("listen", setList(o, "listen", &a.Listen, o.listen, app.ParseListen))
	note("env", setList(o, "env", &a.Environment, o.env, app.ParseAssignment))
	note("property", setList(o, "property", &a.Properties, o.property, app.ParseProperty))
	note("env-file", setList(o, "env-file", &a.EnvironmentFiles, o.envFile, c.envFile))
	note("drain-timeout", setTime(o, "drain-timeout", &a.DrainTimeout, o.drainTimeout))
	note("start-timeout", setTime(o, "start-timeout", &a.StartTimeout, o.startTimeout))
	note("idle-exit", setTime(o, "idle-exit", &a.IdleExit, o.idleExit))
	c.setRollout(&a, note)
	c.setRestart(&a.Restart, note)
	for option, set := range map[string]func(){
		"kind":     func() { a.Kind = app.Kind(o.kind) },
		"path":     func() { a.Path = app.Path(o.path) },
		"strategy": func() { a.Strategy = app.Strategy(o.strategy) },
		"user":     func() { a.User = o.user },
		"ready":    func() { a.Ready = o.ready },
		"shutdown": func() { a.Shutdown = app.Shutdown(o.shutdown) },
		"surge":    func() { a.Surge = o.surge },
	} {
		if o.given[option] {
			set()
		}
	}
	c.setKind(&a)
	note("systemd-version", setVersion(o, &a.SystemdVersion))
	note("working-directory", c.setDirectory(&a, was == nil))
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

// setList replaces a list by the values of a repeatable option. One empty value leaves the list empty.
func setList[T any](o *options, option string, list *[]T, texts []string, parse func(string) (T, error)) error {
	if !o.given[option] {
		return nil
	}
	*list = nil
	var found []error
	for _, text := range texts {
		if text == "" {
			*list = nil
			continue
		}
		value, err := parse(text)
		if err != nil {
			found = append(found, err)
			continue
		}
		*list = append(*list, value)
	}
	return errors.Join(found...)
}

func setTime(o *options, option string, span *time.Duration, text string) error {
	if !o.given[option] {
		return nil
	}
	*span = 0
	if text == "" {
		return nil
	}
	value, err := app.ParseTimeout("--"+option+"=", text)
	*span = value
	return err
}

func setVersion(o *options, v *int) (err error) {
	if !o.given["systemd-version"] {
		return nil
	}
	*v = 0
	if o.systemdVersion == "" {
		return nil
	}
	if *v, err = strconv.Atoi(o.systemdVersion); err != nil || *v < 1 {
		return inputf("", "--systemd-version= must be the number of a version, got %q", o.systemdVersion)
	}
	return nil
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
	program, err := c.resolve(argv[0])
	if err == nil && isNode(program) && !c.site.packaging {
		program, err = c.realNode(ctx, program)
	}
	if err != nil {
		if !o.hasCommand && !strings.Contains(o.name, "/") {
			hint := "unitgen " + string(a.Name) + " --listen=3000 -- COMMAND"
			if verb := verbHint(o.name); verb != "" && len(o.given) == 0 {
				hint = verb
			}
			return inputf(hint, "there is no app %q, and no program of that name in $PATH to make one of", o.name)
		}
		return err
	}
	a.Command = append([]string{program}, argv[1:]...)
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
	if !c.site.packaging {
		if st, err := os.Stat(file); err != nil || st.IsDir() {
			return "", inputf(app.ShellWord("--env-file=-"+text), "--env-file= must name a file that exists, got %q", text)
		}
	}
	return file, nil
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
	text := c.options.instances
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
