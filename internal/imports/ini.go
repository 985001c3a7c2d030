package imports

import (
	"regexp"
	"strings"
)

var comment = regexp.MustCompile(`[ \t]+[;#]`)

// iniSection is a section of a configuration of supervisord, with the file that it stands in.
type iniSection struct {
	name string
	path string // for messages
	line int
	keys []iniKey
}

type iniKey struct {
	key, value string
	path       string // for messages
	line       int
}

// get returns the last value of a key, which counts; false if there is none.
func (s iniSection) get(key string) (iniKey, bool) {
	for i := len(s.keys) - 1; i >= 0; i-- {
		if s.keys[i].key == key {
			return s.keys[i], true
		}
	}
	return iniKey{}, false
}

// parseINI reads what Python's configparser reads with supervisord's options: sections, and "key =
// value" or "key: value". A line that begins with a blank continues the value. ";" and "#" begin a
// comment at the start of a line and after a blank.
func parseINI(path, text string) ([]iniSection, error) {
	var sections []iniSection
	for i, raw := range strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n") {
		line := strings.TrimRight(raw, " \t\r")
		trimmed := strings.TrimLeft(line, " \t")
		if trimmed == "" || trimmed[0] == ';' || trimmed[0] == '#' {
			continue
		}
		if at := comment.FindStringIndex(line); at != nil {
			line = line[:at[0]]
			trimmed = strings.TrimLeft(line, " \t")
		}
		last := len(sections) - 1
		switch {
		case trimmed != line && last >= 0 && len(sections[last].keys) > 0:
			k := &sections[last].keys[len(sections[last].keys)-1]
			k.value += "\n" + trimmed
		case trimmed[0] == '[':
			end := strings.IndexByte(trimmed, ']')
			if end < 0 {
				return nil, &lineError{i + 1, "a section must end in ]"}
			}
			sections = append(sections, iniSection{name: trimmed[1:end], path: path, line: i + 1})
		case last < 0:
			return nil, &lineError{i + 1, "a section such as [program:app] must stand before this line"}
		default:
			at := strings.IndexAny(trimmed, "=:")
			if at <= 0 {
				return nil, &lineError{i + 1, "a line must be KEY=VALUE"}
			}
			key := strings.ToLower(strings.TrimSpace(trimmed[:at]))
			sections[last].keys = append(sections[last].keys, iniKey{key, strings.TrimSpace(trimmed[at+1:]), path, i + 1})
		}
	}
	return sections, nil
}
