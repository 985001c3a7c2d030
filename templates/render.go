// Package templates turns an app into the text of its unit files. What a unit says stands in the
// *.tmpl files beside this one, readable without Go: they only range, test and print. Every
// decision is made before, in decide.go.
//
// It writes no files: that is cmd/unitgen's.
package templates

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"text/template"

	"github.com/unitgen/unitgen/internal/app"
)

//go:embed *.tmpl
var embedded embed.FS

// Paths says what units need to know beside the app's settings: of the machine that they are for, and
// which instances there are.
type Paths struct {
	Lbshim    string   // where the balancer is, absolute
	Instances []int    // those that the app starts with
	Script    []string // the first line of the app's program if it is a script, as program.Script has it
}

// File is a unit file.
type File struct {
	Name string // such as "app@.service"
	Text string
}

// Names lists the templates, sorted: the files that may stand in the override of RenderFS.
func Names() []string {
	names, err := fs.Glob(embedded, "*.tmpl")
	if err != nil {
		panic(err) // a bad pattern
	}
	return names
}

// Render returns the unit files of a (App.Units), sorted by name. The errors of an invalid app are
// InputErrors.
func Render(a app.App, p Paths) ([]File, error) { return render(a, p, embedded) }

// RenderFS is Render, but a template that is also in override, under one of Names, is taken from
// there. Its errors name the template.
func RenderFS(a app.App, p Paths, override fs.FS) ([]File, error) {
	return render(a, p, override, embedded)
}

// PinTemplate is the one template that is not a unit.
const PinTemplate = "pin.conf.tmpl"

// PinFS returns the drop-in that ties instance i of a to a CPU; override is as for RenderFS.
func PinFS(a app.App, i, cpu int, override fs.FS) (File, error) {
	text, err := execute(PinTemplate, pin{Name: a.Name, Instance: i, CPU: cpu}, []fs.FS{override, embedded})
	return File{Name: a.Name.Pin(i), Text: text}, err
}

// pin is what the template of a drop-in prints.
type pin struct {
	Name          app.Name
	Instance, CPU int
}

// render takes each template from the first of sources that has it.
func render(a app.App, p Paths, sources ...fs.FS) ([]File, error) {
	v, err := decide(a, p)
	if err != nil {
		return nil, err
	}
	var files []File
	for _, name := range Names() {
		// The templates are named after an app that is called "app".
		unit := string(a.Name) + strings.TrimSuffix(strings.TrimPrefix(name, "app"), ".tmpl")
		if !slices.Contains(a.Units(), unit) {
			continue
		}
		text, err := execute(name, v, sources)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: unit, Text: text})
	}
	return files, nil
}

func execute(name string, v any, sources []fs.FS) (string, error) {
	text, err := read(name, sources)
	if err != nil {
		return "", fmt.Errorf("read template %s: %w", name, err)
	}
	t, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return "", fmt.Errorf("parse template: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, v); err != nil {
		return "", fmt.Errorf("execute template: %w", err)
	}
	return b.String(), nil
}

func read(name string, sources []fs.FS) (string, error) {
	for _, source := range sources {
		text, err := fs.ReadFile(source, name)
		if err == nil {
			return string(text), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fs.ErrNotExist
}
