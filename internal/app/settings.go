package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// settingsVersion is the value of Version=; it changes when an older unitgen could misread the
// section.
const settingsVersion = "1"

// SettingsSection is the section of app.service that holds the settings; systemd ignores sections
// that begin with "X-" (systemd.unit(5)).
const SettingsSection = "X-Unitgen"

// ErrNoSettings is what ParseSettings returns for a unit without the section: a unit that unitgen
// did not write.
var ErrNoSettings = errors.New("no section [" + SettingsSection + "]")

// Settings writes a as the section [X-Unitgen], from its header to the last newline: one KEY=VALUE
// a line, settings that are not set left out. Values are quoted as in the rest of the unit
// (QuoteWord), but nothing is expanded in them, so "%" and "$" stand for themselves. a must be
// valid; ParseSettings then returns it unchanged.
func Settings(a App) string {
	var text strings.Builder
	text.WriteString("[" + SettingsSection + "]\n")
	for _, s := range table {
		if s.words == nil {
			continue
		}
		words := s.words(&a)
		if s.form == formArgv {
			text.WriteString(settingLine(s, words...))
			continue
		}
		for _, word := range words {
			text.WriteString(settingLine(s, word))
		}
	}
	return text.String()
}

func settingLine(s Setting, words ...string) string {
	if s.form != formTime { // which has blanks, and nothing else to quote
		words = slices.Clone(words)
		for i, word := range words {
			words[i] = QuoteWord(word)
		}
	}
	return s.Key + "=" + strings.Join(words, " ") + "\n"
}

// ParseSettings reads the section [X-Unitgen] in the text of unit app.service. It is strict: an
// unknown key, a key that may stand once only and stands twice, or a bad value gives an error that
// names the line; no section gives ErrNoSettings. The App returned has the right form but is not
// validated: a later unitgen may have allowed more.
func ParseSettings(name Name, unit string) (App, error) {
	a := App{Name: name}
	seen := map[string]struct{}{}
	inside, continued := false, false
	for i, line := range strings.Split(unit, "\n") {
		skip := continued
		continued = endsInBackslash(line)
		line = strings.Trim(line, " \t\r")
		var err error
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case skip && !inside:
		case line[0] == '[':
			inside = line == "["+SettingsSection+"]"
			if inside {
				err = once(seen, line)
			}
		case inside && continued:
			err = errors.New("continued lines are not possible here")
		case inside:
			err = a.parseLine(line, seen)
		}
		if err != nil {
			return App{}, fmt.Errorf("parse %s: line %d: %w", name.Service(), i+1, err)
		}
	}
	switch _, found := seen["["+SettingsSection+"]"]; {
	case !found:
		return App{}, fmt.Errorf("parse %s: %w", name.Service(), ErrNoSettings)
	case len(a.Command) == 0:
		return App{}, fmt.Errorf("parse %s: section [%s] has no Command=", name.Service(), SettingsSection)
	}
	if _, found := seen["Version"]; !found {
		return App{}, fmt.Errorf("parse %s: section [%s] has no Version=", name.Service(), SettingsSection)
	}
	return a, nil
}

func endsInBackslash(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

func once(seen map[string]struct{}, key string) error {
	if _, dup := seen[key]; dup {
		return fmt.Errorf("%s is given twice", key)
	}
	seen[key] = struct{}{}
	return nil
}

// parseLine reads one KEY=VALUE into a.
func (a *App) parseLine(line string, seen map[string]struct{}) error {
	name, value, ok := strings.Cut(line, "=")
	if !ok {
		return fmt.Errorf("%q is not KEY=VALUE", shorten(line))
	}
	name = strings.TrimRight(name, " \t")
	words, err := SplitWords(value)
	if err != nil {
		return fmt.Errorf("%s=: %w", name, err)
	}
	s := settingOfKey(name)
	if s == nil || s.words == nil {
		return fmt.Errorf("%s=: unknown key", name)
	}
	if !s.List {
		if err := once(seen, name); err != nil {
			return err
		}
	}
	switch {
	case len(words) == 0:
		return fmt.Errorf("%s= has no value", name)
	case s.form == formArgv:
		a.Command = words
		return nil
	case s.form == formTime, s.form == formText:
		words = []string{strings.Join(words, " ")}
	case len(words) > 1 && s.form == formWord:
		return fmt.Errorf("%s= takes one word, got %d; quotes make one of several", name, len(words))
	}
	for _, word := range words {
		switch err := s.read(a, word); {
		case errors.Is(err, errZero):
			return fmt.Errorf("%s= %w", name, err)
		case err != nil:
			return fmt.Errorf("%s=: %w", name, err)
		}
	}
	return nil
}
