package main

import (
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

// newPlan compares. Files that are as wanted are in no change, so they keep their times.
func newPlan(s site, a app.App, d *disk, files []templates.File, n int) *plan {
	p := &plan{app: a, was: d.app, files: files, old: d.files}
	for _, f := range files {
		if old, ok := d.files[f.Name]; !ok || old != f.Text {
			p.changes = append(p.changes, change{path: filepath.Join(s.dir, f.Name), text: f.Text})
		}
	}
	for unit := range d.files { // such as the channel socket of an app that ran on Node.js
		if !slices.ContainsFunc(files, func(f templates.File) bool { return f.Name == unit }) {
			p.changes = append(p.changes, change{path: filepath.Join(s.dir, unit)})
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
	return p
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

// filesChange reports whether a unit file is created or changed; links apart.
func (p *plan) filesChange() bool {
	return slices.ContainsFunc(p.changes, func(c change) bool { return c.text != "" })
}

// listenChanges reports whether an app that exists gets other listeners. PID 1 closes the sockets of a running unit
// whose ListenStream= was edited, and still calls it active: such a change needs a stop before and a start after.
func (p *plan) listenChanges() bool {
	if p.was == nil {
		return false
	}
	return !slices.Equal(listenTexts(p.was.Listen), listenTexts(p.app.Listen))
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
			return inputf("", "template %s must begin with %q", template, header)
		}
	}
	return nil
}
