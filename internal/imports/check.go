package imports

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/program"
)

// finish completes the apps, and checks whether unitgen can make them.
func (s *source) finish() error {
	seen := make(map[app.Name]bool)
	for _, a := range s.result.Apps {
		if a.err == nil && seen[a.Name] {
			s.fail(a.line, "", "two apps are named %q", a.Name)
		}
		seen[a.Name] = true
		if a.Skip == "" {
			s.complete(a)
		}
	}
	return errors.Join(s.errs...)
}

func (s *source) complete(a *App) {
	if a.err != nil {
		s.errs = append(s.errs, app.FileError(a.file, a.line, a.err))
		return
	}
	if s.User != "" && !s.UserUnits {
		a.set("--user=", 0, "User", s.User)
	}
	if s.UserUnits {
		a.set("--user-units", 0, "UserUnits", "yes")
	}
	if len(a.Secrets) > 0 {
		a.Settings = append(a.Settings, Setting{Key: "EnvironmentFile", Values: []string{envFile(a.Name)}})
	}
	if !s.wellFormed(a) {
		return
	}
	s.validate(a)
	if !a.has("Listen") {
		a.note("(port)", 0, "nothing says where it listens: unitgen --file="+string(a.Name)+app.FileExtension+" --now starts it once to see")
	}
}

// wellFormed checks each setting as a line of its .unitgen file.
func (s *source) wellFormed(a *App) bool {
	ok := true
	for _, setting := range a.Settings {
		if _, err := app.ParseFile("", settingLine(setting.Key, setting.Values)+"\n"); err != nil {
			for _, input := range app.InputErrors(err) {
				_, msg, _ := strings.Cut(input.Msg, ": ")
				s.errs = append(s.errs, s.fault(setting.file, setting.line, "", "%s: %s", setting.word, msg))
			}
			ok = false
		}
	}
	return ok && a.has("Command")
}

// validate checks the app as a whole. A setting that the app cannot have is left out, with the
// reason. A missing setting that the app must have is an error.
func (s *source) validate(a *App) {
	for range len(a.Settings) + 1 {
		found := app.InputErrors(a.app(s.UserUnits).Validate())
		if len(found) == 0 {
			return
		}
		for _, input := range found {
			key, property := aboutKey(input.Msg)
			i := slices.IndexFunc(a.Settings, func(set Setting) bool {
				return set.Key == key && (property == "" || strings.HasPrefix(set.Values[0], property+"="))
			})
			if i < 0 || key == "Command" || key == "Listen" || key == "User" && !s.UserUnits {
				set := Setting{place: a.place}
				if i >= 0 {
					set = a.Settings[i]
				}
				s.errs = append(s.errs, app.FileError(set.file, set.line, input))
				return
			}
			a.leaveSetting(i, app.InKeys(input.Msg))
		}
	}
}

// leaveSetting removes setting i, with the reason.
func (a *App) leaveSetting(i int, why string) {
	set := a.Settings[i]
	a.Settings = slices.Delete(a.Settings, i, i+1)
	fate := a.Fates.of(set.word, set.line)
	line := settingLine(set.Key, set.Values)
	if fate.To = slices.DeleteFunc(fate.To, func(to string) bool { return to == line }); fate.Left() {
		fate.Why = "" // a remark on what it was to become
	}
	a.note(set.word, set.line, why)
}

// aboutKey returns the key of a .unitgen file that a message is about. For Property= it returns the
// name of the property.
func aboutKey(message string) (key, property string) {
	option, isOption := strings.CutPrefix(message, "--")
	if !isOption {
		return "Command", ""
	}
	end := strings.IndexAny(option, "= ")
	if end < 0 {
		return "", ""
	}
	if option[:end] == "property" {
		property, _, _ = strings.Cut(option[end+1:], "=")
	}
	if s := app.SettingOf(option[:end]); s != nil {
		key = s.Key
	}
	return key, property
}

// app returns the app that unitgen would make of the settings on a machine that has its program.
// What is not known yet has a stand-in.
func (a *App) app(userUnits bool) app.App {
	var b strings.Builder
	b.WriteString("[" + app.SettingsSection + "]\nVersion=1\n")
	listens := false
	node := false
	for _, set := range a.Settings {
		values := slices.Clone(set.Values)
		switch set.Key {
		case "Instances":
			continue
		case "Command":
			node = program.IsNode(values[0])
			values[0] = absolute(values[0])
		case "EnvironmentFile":
			path, optional := strings.CutPrefix(values[0], "-")
			if values[0] = absolute(path); optional {
				values[0] = "-" + values[0]
			}
		case "Listen":
			listens = true
		}
		b.WriteString(settingLine(set.Key, values) + "\n")
	}
	if !listens {
		b.WriteString("Listen=127.0.0.1:65535\n")
	}
	if node && !a.has("Kind") {
		b.WriteString("Kind=node\n")
	}
	b.WriteString("SystemdVersion=999\n") // that of the machine decides where the units are written
	made, err := app.ParseSettings(a.Name, b.String())
	if err != nil {
		// The setting is there twice; wellFormed has checked each one alone.
		return app.App{Name: a.Name}
	}
	made.UserUnits = userUnits
	return made
}

func absolute(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return "/" + path
}
