package plan

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

// Diff returns the difference between the disk and the wanted app, for people and for patch(1):
// files in the form of diff -u, and a line for each link.
func (p *Plan) Diff() string {
	var b strings.Builder
	for _, c := range p.Changes {
		switch {
		case c.Text != "" || c.Old != "":
			b.Write(unified(c))
		case c.Target != "":
			fmt.Fprintf(&b, "+ link %s -> %s\n", c.Path, c.Target)
		default:
			fmt.Fprintf(&b, "- link %s\n", c.Path)
		}
	}
	return b.String()
}

// Text returns what would be done, each change as a comment, and then every file of the app under
// its path.
func (p *Plan) Text() string {
	var b strings.Builder
	for _, c := range p.Changes {
		fmt.Fprintf(&b, "# %s %s", c.Verb(), c.Path)
		if c.Target != "" {
			fmt.Fprintf(&b, " -> %s", c.Target)
		}
		b.WriteByte('\n')
	}
	if p.ListenChanges() {
		fmt.Fprintf(&b, "# the listeners change: if %s runs, it is stopped first and then started again\n", p.App.Name)
	}
	if len(p.Changes) == 0 {
		b.WriteString("# nothing to do\n")
	}
	for _, f := range p.Files {
		fmt.Fprintf(&b, "\n# %s\n%s", filepath.Join(p.site.Dir, f.Name), f.Text)
	}
	return b.String()
}

// unified leaves the line "diff OLD NEW" out, which says nothing that the next two do not.
func unified(c Change) []byte {
	from := c.Path
	if c.Old == "" {
		from = "/dev/null"
	}
	text := diff.Diff(from, []byte(c.Old), c.Path, []byte(c.Text))
	_, text, _ = bytes.Cut(text, []byte("\n"))
	return text
}
