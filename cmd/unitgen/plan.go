package main

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/templates"
)

// plan is the difference between the app that is wanted and the disk.
type plan struct {
	app     app.App
	was     *app.App // nil: the app is new
	files   []templates.File
	old     map[string]string // text of the files that are there
	changes []change          // in the order in which they are made
	add     []int             // instances
	drop    []int             // instances, highest first
	arm     []string          // triggers that the app gets
	disarm  []string          // triggers that it loses
}

// change is one change to the disk. Exactly one of text and target is set, or neither to remove path.
type change struct {
	path   string
	text   string // of a file
	target string // of a link
}

// verb is what a plan calls the change.
func (c change) verb(exists bool) string {
	switch {
	case c.text == "" && c.target == "":
		return "remove"
	case c.target != "":
		return "link"
	case exists:
		return "change"
	}
	return "create"
}

// newPlan compares. Files that are as wanted are in no change, so they keep their times. files are the units and
// drop-ins that are wanted, with names relative to the site's directory.
func newPlan(s site, a app.App, d *disk, files []templates.File, n int) *plan {
	p := &plan{app: a, was: d.app, files: files, old: d.files}
	wanted := make(map[string]bool)
	for _, f := range files {
		wanted[f.Name] = true
		if old, ok := d.files[f.Name]; !ok || old != f.Text {
			p.changes = append(p.changes, change{path: filepath.Join(s.dir, f.Name), text: f.Text})
		}
	}
	p.add, p.drop = difference(d.instances, n)
	wants := filepath.Join(s.dir, a.Name.WantsDir())
	for _, i := range p.add {
		p.changes = append(p.changes, change{path: filepath.Join(wants, a.Name.Instance(i)), target: "../" + a.Name.InstanceTemplate()})
	}
	for _, i := range p.drop {
		p.changes = append(p.changes, change{path: filepath.Join(wants, a.Name.Instance(i))})
	}
	for _, unit := range a.Name.Triggers() {
		switch has := slices.Contains(d.triggers, unit); {
		case wanted[unit] && !has:
			p.arm = append(p.arm, unit)
			p.changes = append(p.changes, change{path: filepath.Join(wants, unit), target: "../" + unit})
		case !wanted[unit] && has:
			p.disarm = append(p.disarm, unit)
			p.changes = append(p.changes, change{path: filepath.Join(wants, unit)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		if !wanted[name] {
			p.changes = append(p.changes, change{path: filepath.Join(s.dir, name)})
		}
	}
	return p
}

// text is what the file at path holds now; empty for none, and for links.
func (p *plan) text(s site, path string) string {
	name, err := filepath.Rel(s.dir, path)
	if err != nil {
		return ""
	}
	return p.old[name]
}

// instancesAfter are the instances when there are n.
func instancesAfter(have []int, n int) []int {
	add, drop := difference(have, n)
	after := slices.DeleteFunc(slices.Clone(have), func(i int) bool { return slices.Contains(drop, i) })
	return slices.Sorted(slices.Values(append(after, add...)))
}

// difference says which instances to add to have, or to drop, to get n: the lowest free numbers, and the highest first.
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

// listenChanges reports whether an app that exists gets other listeners or another path. PID 1 closes the sockets of a running unit
// whose ListenStream= was edited, and still calls it active: such a change needs a stop before and a start after.
func (p *plan) listenChanges() bool {
	if p.was == nil {
		return false
	}
	// Another path has other sockets.
	return !slices.Equal(listenTexts(p.was.Listen), listenTexts(p.app.Listen)) || p.was.DataPath() != p.app.DataPath()
}

// newListeners are those that the app did not have.
func (p *plan) newListeners() []app.Listen {
	if p.was == nil {
		return p.app.Listen
	}
	old := listenTexts(p.was.Listen)
	return slices.DeleteFunc(slices.Clone(p.app.Listen), func(l app.Listen) bool { return slices.Contains(old, l.String()) })
}

func listenTexts(listeners []app.Listen) []string {
	texts := make([]string, len(listeners))
	for i, l := range listeners {
		texts[i] = l.String()
	}
	return texts
}

// checkHeaders finds templates of the admin's that would make files which the next run takes for somebody else's.
func checkHeaders(files []templates.File, name app.Name) error {
	for _, f := range files {
		if !strings.HasPrefix(f.Text, header) {
			template := "app" + strings.TrimPrefix(f.Name, string(name)) + ".tmpl"
			if _, pin := name.ParsePin(f.Name); pin {
				template = templates.PinTemplate
			}
			return inputf("", "template %s must begin with %q", template, header)
		}
	}
	return nil
}
