package plan

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/program"
	"github.com/unitgen/unitgen/templates"
)

// Plan is the difference between the app that is wanted and the disk.
type Plan struct {
	App     app.App
	Was     *app.App         // nil: the app is new
	Files   []templates.File // that are wanted; their names are relative to the site's directory
	Changes []Change         // in the order in which they are made
	Add     []int            // instances
	Drop    []int            // instances, highest first
	Arm     []string         // triggers that the app gets
	Disarm  []string         // triggers that it loses

	site Site
}

// Change is one change to the disk. Exactly one of Text and Target is set, or neither to remove
// Path.
type Change struct {
	Path   string
	Text   string // of a file
	Target string // of a link
	Old    string // text of the file that is at Path now; empty for none, and for links
}

// Verb is what a plan calls the change.
func (c Change) Verb() string {
	switch {
	case c.Text == "" && c.Target == "":
		return "remove"
	case c.Target != "":
		return "link"
	case c.Old != "":
		return "change"
	}
	return "create"
}

// For renders the units of app a with n instances, with the admin's templates, and compares them
// with the disk.
func (d *Disk) For(a app.App, n int) (*Plan, error) {
	override := os.DirFS(d.site.Root + "/etc/unitgen/templates")
	paths := d.site.Paths(a)
	paths.Instances = d.After(n)
	files, err := templates.RenderFS(a, paths, override)
	if err != nil {
		return nil, err
	}
	pins, err := d.site.pins(a, d.After(n), override)
	if err != nil {
		return nil, err
	}
	files = append(files, pins...)
	var foreign []error
	for _, f := range files {
		foreign = append(foreign, d.foreign[f.Name])
	}
	if err := errors.Join(foreign...); err != nil {
		return nil, err
	}
	if err := checkHeaders(files, a.Name); err != nil {
		return nil, err
	}
	return d.compare(a, files, n), nil
}

// Paths returns the paths of this machine that the units of an app need. For a package they are
// those of the target machine.
func (s Site) Paths(a app.App) templates.Paths {
	p := templates.Paths{Lbshim: s.Lbshim}
	if !s.Packaging && len(a.Command) > 0 {
		p.Script, _ = program.Script(a.Command[0])
	}
	return p
}

// pins are the drop-ins that tie instances to CPUs, one after another and round again.
func (s Site) pins(a app.App, instances []int, override fs.FS) ([]templates.File, error) {
	if !a.Pin {
		return nil, nil
	}
	if s.Packaging {
		return nil, fault.Input("", "--pin does not go with --output=, as the CPUs of the target machine are not known here")
	}
	cpus := s.CPUs()
	var files []templates.File
	for _, i := range instances {
		f, err := templates.PinFS(a, i, cpus[(i-1)%len(cpus)], override)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// compare leaves files that are as wanted out of the changes, so they keep their times.
func (d *Disk) compare(a app.App, files []templates.File, n int) *Plan {
	p := &Plan{App: a, Was: d.App, Files: files, site: d.site}
	change := func(name, text, target string) {
		p.Changes = append(p.Changes, Change{Path: filepath.Join(d.site.Dir, name), Text: text, Target: target, Old: d.files[name]})
	}
	wanted := make(map[string]bool)
	for _, f := range files {
		wanted[f.Name] = true
		if old, ok := d.files[f.Name]; !ok || old != f.Text {
			change(f.Name, f.Text, "")
		}
	}
	p.Add, p.Drop = difference(d.Instances, n)
	wants := a.Name.WantsDir()
	for _, i := range p.Add {
		change(filepath.Join(wants, a.Name.Instance(i)), "", "../"+a.Name.InstanceTemplate())
	}
	for _, i := range p.Drop {
		change(filepath.Join(wants, a.Name.Instance(i)), "", "")
	}
	for _, unit := range a.Name.Triggers() {
		switch has := slices.Contains(d.triggers, unit); {
		case wanted[unit] && !has:
			p.Arm = append(p.Arm, unit)
			change(filepath.Join(wants, unit), "", "../"+unit)
		case !wanted[unit] && has:
			p.Disarm = append(p.Disarm, unit)
			change(filepath.Join(wants, unit), "", "")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		if !wanted[name] {
			change(name, "", "")
		}
	}
	return p
}

// Relisted counts the changes that only bring up to date which instances join together: somebody has
// enabled or disabled one by systemctl, which is no fault.
func (p *Plan) Relisted() (n int) {
	for _, c := range p.Changes {
		if c.Verb() == "change" && filepath.Base(c.Path) == p.App.Name.JoinAll() && unlisted(c.Old) == unlisted(c.Text) {
			n++
		}
	}
	return n
}

// unlisted is the text of a unit without the sockets that it lists.
func unlisted(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "Sockets=") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// After are the instances when there are n.
func (d *Disk) After(n int) []int {
	add, drop := difference(d.Instances, n)
	after := slices.DeleteFunc(slices.Clone(d.Instances), func(i int) bool { return slices.Contains(drop, i) })
	return slices.Sorted(slices.Values(append(after, add...)))
}

// difference says which instances to add to have, or to drop, to get n: the lowest free numbers,
// and the highest first.
func difference(have []int, n int) (add, drop []int) {
	for i := 1; len(have)+len(add) < n; i++ {
		if !slices.Contains(have, i) {
			add = append(add, i)
		}
	}
	for i := len(have) - 1; i >= n; i-- {
		drop = append(drop, have[i])
	}
	return add, drop
}

// ListenChanges reports whether an existing app gets other listeners or another path. PID 1 closes
// the sockets of a running unit whose ListenStream= was edited, and still calls it active: such a
// change needs a stop before and a start after.
func (p *Plan) ListenChanges() bool {
	if p.Was == nil {
		return false
	}
	// Another path has other sockets.
	return !slices.Equal(ListenTexts(p.Was.Listen), ListenTexts(p.App.Listen)) || p.Was.DataPath() != p.App.DataPath()
}

// NewListeners are those that the app did not have.
func (p *Plan) NewListeners() []app.Listen {
	if p.Was == nil {
		return p.App.Listen
	}
	old := ListenTexts(p.Was.Listen)
	return slices.DeleteFunc(slices.Clone(p.App.Listen), func(l app.Listen) bool { return slices.Contains(old, l.String()) })
}

// NewBeside are the addresses beside the app's own that it did not have, by the option that gives
// them.
func (p *Plan) NewBeside() []Beside {
	of := func(a *app.App) []Beside { return []Beside{{"--agent=", a.Agent}, {"--metrics=", a.Metrics}} }
	return slices.DeleteFunc(of(&p.App), func(b Beside) bool {
		return b.Listen == (app.Listen{}) || p.Was != nil && slices.Contains(of(p.Was), b)
	})
}

// Beside is an address beside the app's own, and the option that gives it.
type Beside struct {
	Option string
	Listen app.Listen
}

// ListenTexts are listeners as options have them.
func ListenTexts(listeners []app.Listen) []string {
	texts := make([]string, len(listeners))
	for i, l := range listeners {
		texts[i] = l.String()
	}
	return texts
}

// checkHeaders finds templates of the admin whose files the next run would not recognise as
// unitgen's.
func checkHeaders(files []templates.File, name app.Name) error {
	for _, f := range files {
		if !strings.HasPrefix(f.Text, Header) {
			template := "app" + strings.TrimPrefix(f.Name, string(name)) + ".tmpl"
			if _, pin := name.ParsePin(f.Name); pin {
				template = templates.PinTemplate
			}
			return fault.Input("", "template %s must begin with %q", template, Header)
		}
	}
	return nil
}
