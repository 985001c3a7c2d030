package app

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// settingsVersion is the value of Version=; it changes when an older unitgen could misread the section.
const settingsVersion = "1"

// SettingsSection is the section of app.service that holds the settings; systemd ignores sections that begin with "X-"
// (systemd.unit(5)).
const SettingsSection = "X-Unitgen"

// ErrNoSettings is what ParseSettings returns for a unit without the section: a unit that unitgen did not write.
var ErrNoSettings = errors.New("no section [" + SettingsSection + "]")

// Settings writes a as the section [X-Unitgen], from its header to the last newline: one KEY=VALUE a line, settings
// that are not set left out. Values are quoted as in the rest of the unit (QuoteWord), but nothing is expanded in them,
// so "%" and "$" stand for themselves. a must be valid; ParseSettings then returns it unchanged.
func Settings(a App) string {
	var t settingsText
	t.WriteString("[" + SettingsSection + "]\n")
	t.line("Version", settingsVersion)
	t.line("Command", a.Command...)
	for _, l := range a.Listen {
		t.line("Listen", l.String())
	}
	if a.ProgramPort > 0 {
		t.line("ProgramPort", strconv.Itoa(a.ProgramPort))
	}
	t.optional("Kind", string(a.Kind))
	t.optional("Path", string(a.Path))
	t.optional("Strategy", string(a.Strategy))
	for _, e := range a.Environment {
		t.line("Environment", e.Key+"="+e.Value)
	}
	for _, file := range a.EnvironmentFiles {
		t.line("EnvironmentFile", file)
	}
	t.optional("WorkingDirectory", a.WorkingDirectory)
	t.optional("User", a.User)
	if a.UserPerInstance {
		t.line("UserPerInstance", "yes")
	}
	for _, p := range a.Properties {
		t.line("Property", p.Key+"="+p.Value)
	}
	t.timeSpan("DrainTimeoutSec", a.DrainTimeout)
	t.optional("Shutdown", string(a.Shutdown))
	t.timeSpan("StartTimeoutSec", a.StartTimeout)
	t.timeSpan("IdleExitSec", a.IdleExit)
	t.timeSpan("SlowStartSec", a.SlowStart)
	t.optional("Ready", a.Ready)
	if a.Messages {
		t.line("Messages", "yes")
	}
	if a.ShutdownMessage {
		t.line("ShutdownMessage", "yes")
	}
	t.optional("Surge", a.Surge)
	if a.MaxConnections > 0 {
		t.line("MaxConnections", strconv.Itoa(a.MaxConnections))
	}
	if a.Parallel > 0 {
		t.line("Parallel", strconv.Itoa(a.Parallel))
	}
	t.timeSpan("SoakSec", a.Soak)
	a.Restart.write(&t)
	t.optional("Weights", joinNumbers(a.Weights))
	if a.Pin {
		t.line("Pin", "yes")
	}
	if a.UserUnits {
		t.line("UserUnits", "yes")
	}
	if a.SystemdVersion > 0 {
		t.line("SystemdVersion", strconv.Itoa(a.SystemdVersion))
	}
	return t.String()
}

// settingsText is the section while it is written.
type settingsText struct{ strings.Builder }

func (t *settingsText) line(key string, words ...string) {
	t.WriteString(key + "=")
	for i, word := range words {
		if i > 0 {
			t.WriteByte(' ')
		}
		t.WriteString(QuoteWord(word))
	}
	t.WriteByte('\n')
}

// optional leaves out what is empty, timeSpan what is zero.
func (t *settingsText) optional(key, value string) {
	if value != "" {
		t.line(key, value)
	}
}

func (t *settingsText) timeSpan(key string, d time.Duration) {
	if d > 0 {
		t.WriteString(key + "=" + FormatTimeSpan(d) + "\n")
	}
}

// ParseSettings reads the section [X-Unitgen] in the text of unit app.service. It is strict: an unknown key, a key that
// may stand once only and stands twice, or a bad value gives an error that names the line; no section gives
// ErrNoSettings. The App returned has the right form but is not validated: a later unitgen may have allowed more.
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
		return fmt.Errorf("%s stands there twice", key)
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
	key := findKey(name)
	words, err := SplitWords(value)
	if err != nil {
		return fmt.Errorf("%s=: %w", name, err)
	}
	if !key.List {
		if err := once(seen, name); err != nil {
			return err
		}
	}
	switch {
	case len(words) == 0:
		return fmt.Errorf("%s= has no value", name)
	case key.form == formArgv:
		a.Command = words
		return nil
	case key.form == formTime:
		return a.parseTime(name, strings.Join(words, " "))
	case key.form == formText:
		words = []string{strings.Join(words, " ")}
	case len(words) > 1 && key.form == formWord:
		return fmt.Errorf("%s= takes one word, got %d; quotes make one of several", name, len(words))
	}
	for _, word := range words {
		if err := a.parseWord(name, word); err != nil {
			return fmt.Errorf("%s=: %w", name, err)
		}
	}
	return nil
}

func (a *App) parseTime(key, text string) error {
	d, err := ParseTimeSpan(text)
	if err != nil {
		return fmt.Errorf("%s=: %w", key, err)
	}
	if d == 0 {
		return fmt.Errorf("%s= must not be 0", key)
	}
	switch key {
	case "DrainTimeoutSec":
		a.DrainTimeout = d
	case "StartTimeoutSec":
		a.StartTimeout = d
	case "IdleExitSec":
		a.IdleExit = d
	case "SlowStartSec":
		a.SlowStart = d
	case "SoakSec":
		a.Soak = d
	case "RestartDelaySec":
		a.Restart.Delay = d
	case "WithinSec":
		a.Restart.Within = d
	case "WatchdogSec":
		a.Restart.Watchdog = d
	}
	return nil
}

// parseWord reads the settings that are one word.
func (a *App) parseWord(key, word string) (err error) {
	switch key {
	case "Version":
		if word != settingsVersion {
			return fmt.Errorf("%q is a format that this version of unitgen does not know", word)
		}
	case "Listen":
		var l Listen
		l, err = ParseListen(word)
		a.Listen = append(a.Listen, l)
	case "ProgramPort":
		a.ProgramPort, err = strconv.Atoi(word)
		if err != nil || a.ProgramPort < 1 {
			return fmt.Errorf("%q is not a port", word)
		}
	case "Kind":
		a.Kind, err = oneOf(word, KindBind, KindListen, KindNode, KindHandoff, KindPort, KindUnix)
	case "Path":
		a.Path, err = oneOf(word, PathAuto, PathSteer, PathHandoff, PathProxy)
	case "Strategy":
		a.Strategy, err = oneOf(word, RoundRobin, LeastConnections, RandomTwo, SourceHash, First)
	case "Environment":
		var assignment Assignment
		assignment, err = ParseAssignment(word)
		a.Environment = append(a.Environment, assignment)
	case "EnvironmentFile":
		a.EnvironmentFiles = append(a.EnvironmentFiles, word)
	case "WorkingDirectory":
		a.WorkingDirectory, err = notEmpty(word)
	case "User":
		a.User, err = notEmpty(word)
	case "UserPerInstance":
		a.UserPerInstance, err = parseTruth(word)
	case "Property":
		var p Property
		p, err = ParseProperty(word)
		a.Properties = append(a.Properties, p)
	case "Shutdown":
		a.Shutdown, err = oneOf(word, ShutdownGraceful, ShutdownQuick)
	case "Ready":
		a.Ready, err = notEmpty(word)
	case "Messages":
		a.Messages, err = parseTruth(word)
	case "ShutdownMessage":
		a.ShutdownMessage, err = parseTruth(word)
	case "Surge":
		a.Surge, err = notEmpty(word)
	case "MaxConnections":
		a.MaxConnections, err = strconv.Atoi(word)
		if err != nil || a.MaxConnections < 1 {
			return fmt.Errorf("%q is not a number of connections", word)
		}
	case "Parallel":
		a.Parallel, err = strconv.Atoi(word)
		if err != nil || a.Parallel < 1 {
			return fmt.Errorf("%q is not a number of instances", word)
		}
	case "Weights":
		a.Weights, err = ParseWeights(word)
	case "Pin":
		a.Pin, err = parseTruth(word)
	case "UserUnits":
		a.UserUnits, err = parseTruth(word)
	case "SystemdVersion":
		a.SystemdVersion, err = strconv.Atoi(word)
		if err != nil || a.SystemdVersion < 1 {
			return fmt.Errorf("%q is not the number of a version", word)
		}
	default:
		return a.Restart.parseWord(key, word)
	}
	return err
}

func parseTruth(word string) (bool, error) {
	truth, ok := boolean(word)
	if !ok {
		return false, fmt.Errorf("%q is neither yes nor no", word)
	}
	return truth, nil
}

func notEmpty(word string) (string, error) {
	if word == "" {
		return "", errors.New("the value is empty")
	}
	return word, nil
}

func oneOf[T ~string](word string, known ...T) (T, error) {
	for _, k := range known {
		if string(k) == word {
			return k, nil
		}
	}
	return "", fmt.Errorf("unknown value %q", word)
}
