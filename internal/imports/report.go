package imports

import (
	"fmt"
	"strings"
	"unicode"
)

// Report says of each word of the source what became of it, and why if nothing did. It has no values of secrets.
func (m *Import) Report() string {
	var b strings.Builder
	for i, a := range m.Apps {
		if i > 0 {
			b.WriteByte('\n')
		}
		switch {
		case a.Skip != "":
			fmt.Fprintf(&b, "%s: not imported: %s\n", a.Name, printable(a.Skip))
			continue
		case len(a.Secrets) > 0:
			fmt.Fprintf(&b, "%s: %s%s, %s\n", a.Name, a.Name, extension, envFile(a.Name))
		default:
			fmt.Fprintf(&b, "%s: %s%s\n", a.Name, a.Name, extension)
		}
		a.Fates.report(&b)
	}
	if len(m.Rest) > 0 {
		if len(m.Apps) > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s\n", printable(m.Shown))
		m.Rest.report(&b)
	}
	return b.String()
}

// report writes first what became of words, then what was left out.
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
			fmt.Fprintf(b, "  %-*s  %s\n", width, printable(word), printable(to))
			word = ""
		}
		if fate.Why != "" {
			fmt.Fprintf(b, "  %-*s  (%s)\n", width, word, printable(fate.Why))
		}
	}
	if !left {
		return
	}
	b.WriteString("  left out:\n")
	for _, fate := range f {
		if fate.Left() {
			fmt.Fprintf(b, "  %-*s  %s\n", width, printable(fate.Word), printable(fate.Why))
		}
	}
}

// maxWordColumn keeps a long word from moving all others to the right.
const maxWordColumn = 28

// to is what the word became; the variables of one file stand in one line.
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

// printable keeps what a source says from acting on the terminal.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\t' || unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, "\\x%02x", r)
	}
	return b.String()
}
