package wanted

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/regular"
	"github.com/unitgen/unitgen/templates"
)

// NameOf names the app of a file: "debian/shop.unitgen" is about app shop.
func NameOf(path string) (app.Name, error) {
	base, ok := strings.CutSuffix(filepath.Base(path), app.FileExtension)
	if !ok {
		return "", fault.Input("unitgen app --file="+app.ShellWord(path), "the app's name is missing, as %q does not end in %q", path, app.FileExtension)
	}
	return app.ParseName(base)
}

// file is a .unitgen file whose settings have been taken over.
type file struct {
	path  string
	lines map[string]int // the last line of each option that it sets, "command" for the command
	// given are the options that were given beside the file, and win.
	given map[string]bool
}

// TakeFile takes over the settings of a .unitgen file, each as if its option had been given;
// options that were given win. Relative paths in it count from its own directory, wherever unitgen
// is called. The file is the whole app: what it does not set has its default, whatever an app that
// exists had. Errors name the line.
func (r *Request) TakeFile(path string) error {
	text, err := regular.Read(r.absolute(path), app.MaxFile+1)
	if err != nil {
		return fault.Input("", "--file=%s cannot be read: %v", path, fault.WithoutPath(err))
	}
	settings, err := app.ParseFile(path, text)
	if err != nil {
		return err
	}
	r.file = &file{path: path, lines: make(map[string]int), given: make(map[string]bool)}
	for option := range r.Values {
		r.file.given[option] = true
	}
	var found []error
	for _, s := range settings {
		if err := r.take(s); err != nil {
			found = append(found, app.FileError(path, s.Number, err))
		}
	}
	if !r.Commanded {
		found = append(found, fault.Input("", "%s: Command= is missing", path))
	}
	return errors.Join(found...)
}

// take takes over one setting.
func (r *Request) take(s app.Line) error {
	dir := filepath.Dir(r.absolute(r.file.path))
	switch {
	case s.Key == "Version" || r.file.given[s.Option]:
		return nil
	case s.Key == "Command":
		if r.Commanded {
			return nil
		}
		r.file.lines["command"] = s.Number
		r.Command, r.Commanded, r.from = s.Given, true, dir
		if r.Absolute && !filepath.IsAbs(s.Given[0]) {
			return fault.Input("", "Command= must begin with an absolute path in the files of a package, got %q", s.Given[0])
		}
		return nil
	}
	r.file.lines[s.Option] = s.Number
	for _, value := range s.Given {
		value, err := r.fileValue(s.Setting, value, dir)
		if err != nil {
			return err
		}
		if !s.List {
			r.Values[s.Option] = nil
		}
		r.Values[s.Option] = append(r.Values[s.Option], value)
	}
	if s.Option == "user-units" {
		r.UserUnits = app.Truth(s.Given[len(s.Given)-1])
	}
	return nil
}

// fileValue is the value of a setting as its option takes it.
func (r *Request) fileValue(s *app.Setting, value, dir string) (string, error) {
	switch {
	case s.Flag && app.Truth(value):
		return "yes", nil
	case s.Flag:
		return "no", nil
	case !s.IsPath:
		return value, nil
	}
	path, optional := value, ""
	if s.Option == "env-file" && strings.HasPrefix(value, "-") {
		path, optional = value[1:], "-"
	}
	if r.Absolute && !filepath.IsAbs(path) {
		return "", fault.Input("", "--%s= must be an absolute path in the files of a package, got %q", s.Option, value)
	}
	return optional + Join(dir, path), nil
}

// before is the app that options change: was, or none where a file says all. The version that the
// units are written for is no matter of the file's, unless it says so.
func (r *Request) before(was *app.App) *app.App {
	if r.file == nil || was == nil {
		return was
	}
	if !r.Given("systemd-version") && was.SystemdVersion > 0 {
		r.Give("systemd-version", strconv.Itoa(was.SystemdVersion))
	}
	return nil
}

// inFile says of each thing that is wrong with the app where in the file it comes from. What an
// option of the command line said stays in that option's words.
func (r *Request) inFile(err error) error {
	if r.file == nil {
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
		line, known := r.file.lines[about]
		if known || app.SettingOf(about) != nil && !r.file.given[about] {
			part = app.FileError(r.file.path, line, input)
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

// CheckFile finds what is wrong with a .unitgen file and with the app of its name that it makes,
// and returns that app. What only the machine knows that the app will run on, such as whether its
// program is there, is not looked at if r's site is a package's.
func (r *Request) CheckFile(ctx context.Context, path string) (app.App, error) {
	err := r.TakeFile(path)
	name, nameErr := NameOf(path)
	if err != nil || nameErr != nil {
		return app.App{}, errors.Join(nameErr, err)
	}
	r.Name = name
	a, err := r.App(ctx, nil)
	if err != nil {
		return a, err
	}
	if _, err := templates.Render(a, templates.Paths{Lbshim: r.Site.Lbshim}); err != nil {
		return a, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}
