package imports

import (
	"fmt"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// Report says what became of each word of the source, and why if a word has no effect. It contains
// no values of secrets.
func (m *Import) Report() string {
	var b strings.Builder
	for i, a := range m.Apps {
		if i > 0 {
			b.WriteByte('\n')
		}
		switch {
		case a.Skip != "":
			fmt.Fprintf(&b, "%s: not imported: %s\n", a.Name, fault.Printable(a.Skip))
			continue
		case len(a.Secrets) > 0:
			fmt.Fprintf(&b, "%s: %s%s, %s\n", a.Name, a.Name, app.FileExtension, envFile(a.Name))
		default:
			fmt.Fprintf(&b, "%s: %s%s\n", a.Name, a.Name, app.FileExtension)
		}
		a.Fates.report(&b)
	}
	if len(m.Rest) > 0 {
		if len(m.Apps) > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s\n", fault.Printable(m.Shown))
		m.Rest.report(&b)
	}
	return b.String()
}

// report writes first the words with an effect, then those without.
func (f Fates) report(b *strings.Builder) {
	width := 0
	for _, fate := range f {
		width = max(width, min(len(fate.Word), maxWordColumn))
	}
	left := false
	for _, fate := range f {
		if fate.Left() {
			left = true
			continue
		}
		word := fate.Word
		for _, to := range fate.to() {
			fmt.Fprintf(b, "  %-*s  %s\n", width, fault.Printable(word), fault.Printable(to))
			word = ""
		}
		if fate.Why != "" {
			fmt.Fprintf(b, "  %-*s  (%s)\n", width, word, fault.Printable(fate.Why))
		}
	}
	if !left {
		return
	}
	b.WriteString("  left out:\n")
	for _, fate := range f {
		if fate.Left() {
			fmt.Fprintf(b, "  %-*s  %s\n", width, fault.Printable(fate.Word), fault.Printable(fate.Why))
		}
	}
}

// maxWordColumn is the widest column of words. One long word does not move the others to the right.
const maxWordColumn = 28

// to returns what the word became. The variables of one file are on one line.
func (f Fate) to() []string {
	var out []string
	at := make(map[string]int)
	for _, to := range f.To {
		file, name, ok := strings.Cut(to, ".env: ")
		if !ok {
			out = append(out, to)
			continue
		}
		if i, has := at[file]; has {
			out[i] += ", " + name
			continue
		}
		at[file] = len(out)
		out = append(out, to)
	}
	return out
}
