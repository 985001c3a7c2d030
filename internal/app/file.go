package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/nearest"
)

// FileExtension is what the name of a .unitgen file ends in. What stands before it names the app.
const FileExtension = ".unitgen"

// MaxFile is the longest .unitgen file in bytes: the longest logical line of a unit file.
const MaxFile = MaxLine

// maxFindings is the maximum number of errors that are printed for one file. More mean that it is
// not a settings file.
const maxFindings = 50

// Line is one line of a .unitgen file.
type Line struct {
	*Setting
	Number int      // where it begins, counted from 1
	Given  []string // one value, or several of Environment=; of Command= the argv. As the option would be given, without quotes
}

// ParseFile reads a .unitgen file (unitgen(5)): the keys of section [X-Unitgen] in the syntax of
// systemd.syntax(7), where the section's header and Version= may be left out and Instances= may
// stand. It is as strict as ParseSettings. path is for messages alone. The error is all that is
// wrong, as joined InputErrors that begin with "PATH:LINE: "; whether the settings make an app is
// not looked at.
func ParseFile(path, text string) ([]Line, error) {
	if len(text) > MaxFile {
		return nil, inputErrorf("", "%s: it must have at most %d bytes", path, MaxFile)
	}
	if problem := textProblem(text); problem != "" {
		return nil, inputErrorf("", "%s: not a text file: %s", path, problem)
	}
	p := fileParser{seen: make(map[string]struct{})}
	var found inputErrors
	for _, line := range logicalLines(strings.TrimPrefix(text, "\ufeff")) {
		if err := p.parse(line); err != nil {
			found.add(FileError(path, line.number, err))
		}
		if len(found.errs) == maxFindings {
			break
		}
	}
	return p.lines, found.err()
}

// textProblem says why PID 1 would not read text as lines; empty if it would.
func textProblem(text string) string {
	switch {
	case strings.IndexByte(text, 0) >= 0:
		return "it contains NUL"
	case !isText(text):
		return "it is not valid UTF-8"
	}
	return ""
}

// FileError adds the place in the .unitgen file at path to an error, and writes the error with the
// keys of the file: "PATH:LINE: ", or "PATH: " for line 0. It is an InputError.
func FileError(path string, line int, err error) error {
	place := path
	if line > 0 {
		place = fmt.Sprintf("%s:%d", path, line)
	}
	var input *InputError
	if !errors.As(err, &input) {
		return inputErrorf("", "%s: %v", place, err)
	}
	return inputErrorf(InKeys(input.Hint), "%s: %s", place, InKeys(input.Msg))
}

// logicalLine is a line with those that continue it.
type logicalLine struct {
	number int
	text   string
}

// logicalLines leaves out comments and empty lines. A backslash at the end becomes a blank, and the
// next line follows; comments between the two are left out too (config_parse() in
// src/shared/conf-parser.c).
func logicalLines(text string) []logicalLine {
	var lines []logicalLine
	var open strings.Builder // a line that is continued
	begin := 0               // its number; 0 for none
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		trimmed := strings.Trim(line, " \t")
		if trimmed != "" && (trimmed[0] == '#' || trimmed[0] == ';') || trimmed == "" && begin == 0 {
			continue
		}
		if begin == 0 {
			begin = i + 1
		}
		if endsInBackslash(line) {
			open.WriteString(line[:len(line)-1] + " ")
			continue
		}
		lines = append(lines, logicalLine{number: begin, text: open.String() + line})
		open.Reset()
		begin = 0
	}
	if begin > 0 { // PID 1 takes a last line so too
		lines = append(lines, logicalLine{number: begin, text: open.String()})
	}
	return lines
}

// fileParser is the state of reading a .unitgen file. The app checks each value as section
// [X-Unitgen] would.
type fileParser struct {
	app   App
	seen  map[string]struct{}
	lines []Line
}

func (p *fileParser) parse(line logicalLine) error {
	text := strings.Trim(line.text, " \t")
	if strings.HasPrefix(text, "[") {
		switch {
		case text != "["+SettingsSection+"]":
			return inputErrorf("", "section %q is not possible here, only [%s]", shorten(text), SettingsSection)
		case len(p.lines) > 0 || len(p.seen) > 0:
			return errors.New("[" + SettingsSection + "] must appear once, before all keys")
		}
		return once(p.seen, text)
	}
	name, value, ok := strings.Cut(text, "=")
	name = strings.TrimRight(name, " \t")
	s := settingOfKey(name)
	switch {
	case !ok:
		return inputErrorf("", "%q is not KEY=VALUE", shorten(text))
	case s == nil:
		return unknownKey(name)
	case s.Key == "Instances":
		if err := once(p.seen, name); err != nil {
			return err
		}
		if err := checkFileInstances(value); err != nil {
			return err
		}
	default:
		if err := p.app.parseLine(text, p.seen); err != nil {
			return err
		}
	}
	words, err := SplitWords(value)
	if s.form == formText || s.form == formTime {
		words = []string{strings.Join(words, " ")}
	}
	p.lines = append(p.lines, Line{Setting: s, Number: line.number, Given: words})
	return err
}

// checkFileInstances accepts a number or "max". A file gives an absolute number, so +1 has no
// meaning in it.
func checkFileInstances(value string) error {
	if value = strings.Trim(value, " \t"); value == "max" {
		return nil
	}
	if _, ok := ParseInstance(value); !ok {
		return inputErrorf("Instances=4", "Instances= must be a number from 1 to %d or max, got %q", MaxInstances, shorten(value))
	}
	return nil
}

func unknownKey(name string) error {
	if near := nearestKey(name); near != "" {
		return inputErrorf("", "unknown key %q; did you mean %s=?", shorten(name), near)
	}
	if settingName(name) {
		return inputErrorf("", "unknown key %q; a setting of section [Service] is written Property=%s=VALUE", shorten(name), shorten(name))
	}
	return inputErrorf("man 5 unitgen", "unknown key %q", shorten(name))
}

// nearestKey returns the key that name may be a misspelling of: of the key, of its option, or of
// the setting's name in units. It is empty if none is near.
func nearestKey(name string) string {
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s)) }
	word := plain(name)
	best, least := "", 1+min(3, len(word)/3)
	for _, s := range table {
		if slices.Contains(strings.Fields(s.aliases), word) {
			return s.Key
		}
		for _, known := range []string{s.Key, s.Option} {
			d := nearest.Distance(word, plain(known))
			if known != "" && strings.TrimSuffix(plain(known), "sec") == word {
				d = 0
			}
			if known != "" && d < least {
				best, least = s.Key, d
			}
		}
	}
	return best
}
