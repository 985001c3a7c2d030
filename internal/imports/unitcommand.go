package imports

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
)

// command makes the argv of ExecStart=. It expands what PID 1 would expand, as far as the unit says
// the values. A shell expands the rest, because unitgen passes a command on literally.
func (u *handUnit) command() {
	var starts []option
	for _, o := range u.options {
		if o.section == "Service" && o.key == "ExecStart" {
			if starts = append(starts, o); o.value == "" {
				starts = nil
			}
		}
	}
	switch {
	case len(starts) == 0:
		u.s.fail(0, "", "it has no ExecStart=")
		return
	case len(starts) > 1:
		u.fail(starts[1], "an instance has one ExecStart=")
		return
	}
	o := starts[0]
	u.file = o.path
	line := u.prefixes(o)
	words, err := app.SplitWords(line)
	if err != nil || len(words) == 0 {
		u.fail(o, "ExecStart= cannot be taken apart: %v", err)
		return
	}
	if strings.Contains(o.value, " ; ") {
		u.fail(o, "an instance has one command in ExecStart=, got several")
		return
	}
	e := unitExpander{unit: u}
	argv := make([]string, len(words))
	for i, word := range words {
		if argv[i], err = e.expand(word); err != nil {
			u.fail(o, "ExecStart=: %v", err)
			return
		}
	}
	if e.shell {
		argv = []string{"/bin/sh", "-c", "exec " + e.line(words)}
	}
	if program := argv[0]; strings.Contains(program, "/") && !filepath.IsAbs(program) {
		u.fail(o, "ExecStart= must begin with an absolute path or a name, got %q", short(program))
		return
	}
	u.set(o.key, o.line, "Command", argv...)
	if name := secretArgument(argv); name != "" {
		u.note(o.key, o.line, "everybody can read "+name+" in the unit, as in the list of processes")
	}
}

// prefixes removes the special characters before the program (systemd.service(5)).
func (u *handUnit) prefixes(o option) string {
	line := strings.TrimLeft(o.value, "@-:+!|")
	for _, c := range o.value[:len(o.value)-len(line)] {
		switch c {
		case '-':
			u.note(o.key, o.line, `"-" goes: an exit status that means no failure is StopExitCodes='s`)
		case '@', '|':
			u.fail(o, "%q before the program is not possible", string(c))
		case '+', '!':
			u.note(o.key, o.line, fmt.Sprintf("%q goes: the program has the rights of the app's user", string(c)))
		case ':':
			line = strings.ReplaceAll(line, "$", "$$")
		}
	}
	return line
}

// unitExpander expands the variables and specifiers of words as PID 1 does, as far as the unit says
// them. shell is set when it meets one that only an instance knows.
type unitExpander struct {
	unit  *handUnit
	shell bool
}

func (e *unitExpander) expand(word string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(word); i++ {
		switch c := word[i]; {
		case c == '%' && i+1 < len(word):
			i++
			text, err := e.specifier(word[i])
			if err != nil {
				return "", err
			}
			b.WriteString(text)
		case c == '$' && strings.HasPrefix(word[i:], "$$"):
			b.WriteByte('$')
			i++
		case c == '$':
			name, size := variableAt(word[i:])
			if name == "" {
				b.WriteByte(c)
				continue
			}
			text, known := e.unit.variable(name)
			// A value with blanks becomes several words where PID 1 expands $NAME.
			if !known || secret(name, text) || strings.ContainsAny(text, " \t") || name == "INSTANCE" {
				e.shell = true
			}
			b.WriteString(text)
			i += size - 1
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// variableAt returns the name of the variable that s begins with, $NAME or ${NAME}, and its length
// in bytes.
func variableAt(s string) (name string, size int) {
	if strings.HasPrefix(s, "${") {
		end := strings.IndexByte(s, '}')
		if end < 0 || !app.IsVariable(s[2:end]) {
			return "", 0
		}
		return s[2:end], end + 1
	}
	end := 1
	for end < len(s) && app.IsVariable(s[1:end+1]) {
		end++
	}
	return s[1:end], end
}

// specifier returns what PID 1 inserts for %c (systemd.unit(5)).
func (e *unitExpander) specifier(c byte) (string, error) {
	name := string(e.unit.Name)
	switch c {
	case '%':
		return "%", nil
	case 'p', 'P', 'j', 'J', 'N', 'n':
		return name, nil
	case 'i', 'I':
		if !e.unit.template {
			return "", nil
		}
		e.shell = true
		return "", nil
	case 't':
		return "/run", nil
	case 'S':
		return "/var/lib", nil
	case 'C':
		return "/var/cache", nil
	case 'L':
		return "/var/log", nil
	case 'E':
		return "/etc", nil
	case 'T':
		return "/tmp", nil
	case 'V':
		return "/var/tmp", nil
	}
	return "", fmt.Errorf("what %%%c stands for must be written out", c)
}

// line returns the command for a shell: variables stay variables, and %i is $INSTANCE.
func (e *unitExpander) line(words []string) string {
	var out []string
	for _, word := range words {
		var b strings.Builder
		bare := len(word) > 1 && word[0] == '$' && word[1] != '{' && word[1] != '$'
		b.WriteByte('"')
		for i := 0; i < len(word); i++ {
			switch c := word[i]; {
			case c == '%' && i+1 < len(word) && (word[i+1] == 'i' || word[i+1] == 'I'):
				b.WriteString("${INSTANCE}")
				i++
			case c == '%' && i+1 < len(word):
				i++
				text, _ := e.specifier(word[i])
				b.WriteString(text)
			case c == '$' && strings.HasPrefix(word[i:], "$$"):
				b.WriteString(`\$`)
				i++
			case c == '$':
				if name, size := variableAt(word[i:]); name != "" {
					b.WriteString("${" + name + "}")
					i += size - 1
					continue
				}
				b.WriteString(`\$`)
			case strings.IndexByte("\"\\`", c) >= 0:
				b.WriteString(`\` + string(c))
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('"')
		text := b.String()
		if name, size := variableAt(word); bare && name != "" && size == len(word) {
			text = "$" + name // PID 1 splits its value at blanks
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}
