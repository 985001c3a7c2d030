// Package wanted turns what a user asks for, by options or by a .unitgen file, into the app that is
// wanted, and checks what the settings alone do not tell: whether this machine has the program, its
// user, its files and the way to them, so that the first thing the user sees is not an instance
// that restarts.
//
// All errors of one step are found in one go, as joined app.InputErrors that begin with the option.
// It starts nothing but node, to ask where it is, and systemd-analyze, each by a function of the
// caller. Package plan compares and writes.
package wanted

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/account"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/doctor"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/program"
)

// Machine is the machine that an app is for.
type Machine struct {
	Site     plan.Site // with Packaging nothing of this machine matters
	Dir      string    // the current directory; empty if it does not exist
	Path     string    // $PATH
	Accounts account.Book
	CPUs     func() int // that the instances may use

	Node     func(ctx context.Context, program string) (string, error)           // asks a program that stands for node for the path of the real one
	Calendar func(text string) bool                                              // calendar expressions of systemd.time(7)
	Verify   func(ctx context.Context, userUnits bool, name, text string) string // what systemd says of a unit file; nil: nobody asks
}

// Request is what is asked for an app. TakeFile adds a file to it.
type Request struct {
	Machine

	Name      app.Name
	Word      string // what names the app: its name or the path of a program; empty where only a file does
	Otherwise string // what to type where Word names neither an app nor a program; empty: how to make an app
	Command   []string
	Commanded bool                // with a command, which may be empty
	Values    map[string][]string // of the options of settings that were given
	UserUnits bool

	// Absolute says that a file is part of a package's, where names that count from its directory
	// mean nothing.
	Absolute bool

	file  *file  // nil for none
	typed string // the program of a new command, as it was written; empty for none
	from  string // where relative names of the command count from; empty: from Dir
}

// Give sets an option as if it had been given so; without values, as if it had not been given.
func (r *Request) Give(option string, values ...string) {
	if len(values) == 0 {
		delete(r.Values, option)
		return
	}
	r.Values[option] = values
}

// Given reports whether an option was given, or a file has its setting.
func (r *Request) Given(option string) bool { return len(r.Values[option]) > 0 }

// App is the app that is wanted: was, or a new one for nil, with the options that were given. A
// file is the whole app, whatever was. An empty value takes a setting back to its default, as an
// empty assignment does in a unit file.
func (r *Request) App(ctx context.Context, was *app.App) (app.App, error) {
	if was = r.before(was); was == nil {
		was = &app.App{}
		was.Name, was.UserUnits = r.Name, r.UserUnits
		return r.app(ctx, *was, true)
	}
	return r.app(ctx, *was, false)
}

func (r *Request) app(ctx context.Context, a app.App, isNew bool) (app.App, error) {
	var found []error
	unread := make(map[string]bool) // what is missing in a, as it could not be read
	note := func(option string, err error) {
		if err != nil {
			found = append(found, err)
			unread[option] = true
		}
	}
	note("command", r.setCommand(ctx, &a, isNew))
	for _, s := range app.Table() {
		if s.Option != "" && s.Option != "user-units" && r.Given(s.Option) {
			values, err := r.read(s.Option)
			note(s.Option, errors.Join(err, s.Set(&a, values)))
		}
	}
	r.setKind(&a)
	r.setDirectory(&a, isNew)
	if r.typed != "" && !(r.Site.Packaging && filepath.IsAbs(r.typed)) {
		note("command", doctor.CheckCommand(a, r.typed))
	}
	for _, e := range app.InputErrors(a.Validate()) {
		about, _, _ := strings.Cut(strings.TrimPrefix(e.Msg, "--"), "=")
		if strings.HasPrefix(e.Msg, "the command") {
			about = "command"
		}
		if !unread[about] {
			found = append(found, e)
		}
	}
	return a, r.inFile(errors.Join(found...))
}

// read checks the values of an option that the machine has a say in, and makes them whole. Those
// with an error are left out.
func (r *Request) read(option string) ([]string, error) {
	values := r.Values[option]
	check := map[string]func(string) (string, error){
		"env-file": r.envFile, "working-directory": r.directory, "watch": r.watched, "reload-at": r.calendar,
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

// setCommand takes over the command. Without one an app that exists keeps its own, and a new one is
// named after its program.
func (r *Request) setCommand(ctx context.Context, a *app.App, isNew bool) error {
	argv := r.Command
	isPath := strings.Contains(r.Word, "/")
	switch {
	case r.Commanded && len(argv) == 0:
		return fault.Input("unitgen "+string(a.Name)+" -- ./app", "the command after \"--\" is empty")
	case !r.Commanded && !isNew && !isPath:
		return nil
	case !r.Commanded:
		argv = []string{r.Word}
	}
	path, err := r.resolve(argv[0])
	if err == nil && program.IsNode(path) && !r.Site.Packaging {
		path, err = r.realNode(ctx, path)
	}
	switch {
	case err != nil && !r.Commanded && !isPath:
		return fault.Input(cmp.Or(r.Otherwise, "unitgen "+string(a.Name)+" --listen=3000 -- COMMAND"),
			"there is no app %q, and $PATH has no program of that name to make an app from", r.Word)
	case err != nil:
		return err
	}
	a.Command = append([]string{path}, argv[1:]...)
	r.typed = argv[0]
	return nil
}

// Count is how many instances the app is to have: --instances= as a number, as "max", or as a
// difference to those that a wanted app has, which are 1 if it is new.
func (r *Request) Count(have int, isNew bool) (int, error) {
	if !r.Given("instances") {
		if isNew {
			return 1, nil
		}
		return have, nil
	}
	values := r.Values["instances"]
	text := values[len(values)-1]
	if text == "max" {
		return min(r.CPUs(), app.MaxInstances), nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fault.Input("--instances=4", "--instances= must be a number, +N, -N or max, got %q", text)
	}
	if strings.HasPrefix(text, "+") || strings.HasPrefix(text, "-") {
		if n += have; n < 1 || n > app.MaxInstances {
			return 0, fault.Input("", "--instances=%s of %d would be %d, and it must be between 1 and %d", text, have, n, app.MaxInstances)
		}
	}
	return n, app.CheckInstances(n)
}

// absolute is a path from the current directory, without a look at the disk.
func (r *Request) absolute(path string) string { return Join(r.Dir, path) }

// commandDir is the directory from which the relative names of the command count.
func (r *Request) commandDir() string { return cmp.Or(r.from, r.Dir) }

// Join is path from dir, unless path is absolute or dir empty.
func Join(dir, path string) string {
	if filepath.IsAbs(path) || dir == "" {
		return path
	}
	return filepath.Join(dir, path)
}
