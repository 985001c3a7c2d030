package imports

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
)

// App is one app of a source. Read returns it complete.
type App struct {
	Name     app.Name
	Settings []Setting
	Secrets  []app.Assignment // of the environment; they go to a file of their own
	Fates    Fates
	Skip     string // why no app can be made of it; empty if one can
	Stopped  bool   // the source does not start it by itself

	place       // where the source begins it; its file is that of what is added
	err   error // of the name
}

// place is a word of the source, such as a key, and its line. Line 0 means that the source has no
// lines.
type place struct {
	word string
	line int
	file string // for messages
}

// Setting is one value of a key of the .unitgen file, and where it comes from.
type Setting struct {
	Key    string
	Values []string // one, or the argv of Command=
	place
}

// Fates says what became of each word of a source, in the order of the source.
type Fates []Fate

// Fate is what became of one word of a source: its settings, or why there are none.
type Fate struct {
	Word string
	Line int
	To   []string // settings as the .unitgen file has them; without values of secrets
	Why  string   // a remark; with an empty To the reason why the word was left out
}

// Left reports whether nothing became of the word.
func (f Fate) Left() bool { return len(f.To) == 0 }

// of returns the fate of a word. It makes a new one if there is none yet.
func (f *Fates) of(word string, line int) *Fate {
	for i := range *f {
		if (*f)[i].Word == word && ((*f)[i].Line == line || line == 0) {
			return &(*f)[i]
		}
	}
	*f = append(*f, Fate{Word: word, Line: line})
	return &(*f)[len(*f)-1]
}

// leave notes why a word has no effect. After maxWords words it notes once that there are more.
func (f *Fates) leave(word string, line int, why string) {
	switch {
	case len(*f) > maxWords:
		return
	case len(*f) == maxWords:
		word, line, why = "…", 0, "more words than can be listed"
	}
	fate := f.of(word, line)
	if fate.Why != "" && why != "" {
		why = fate.Why + "; " + why
	}
	fate.Why = why
}

// full reports whether the app has as many words as it may have, which is an error.
func (a *App) full() bool {
	if max(len(a.Fates), len(a.Settings)+len(a.Secrets)) < maxWords {
		return false
	}
	if a.err == nil {
		a.err = &app.InputError{Msg: fmt.Sprintf("app %q has more than %d words", a.Name, maxWords)}
	}
	return true
}

// set adds a value of a key.
func (a *App) set(word string, line int, key string, values ...string) {
	if a.full() {
		return
	}
	a.Settings = append(a.Settings, Setting{Key: key, Values: values, place: place{word, line, a.file}})
	fate := a.Fates.of(word, line)
	fate.To = append(fate.To, settingLine(key, values))
}

// became notes what a word is to the app, if no setting comes of it.
func (a *App) became(word string, line int, to string) {
	fate := a.Fates.of(word, line)
	fate.To = append(fate.To, to)
}

// note adds a remark to the fate of a word. For a word without an effect the remark is the reason.
func (a *App) note(word string, line int, why string) {
	if !a.full() {
		a.Fates.leave(word, line, why)
	}
}

// has reports whether a key has a value already.
func (a *App) has(key string) bool {
	for _, s := range a.Settings {
		if s.Key == key {
			return true
		}
	}
	return false
}

// property adds a setting of systemd.
func (a *App) property(word string, line int, key, value string) {
	a.set(word, line, "Property", key+"="+value)
}

// milliseconds adds a time that the source gives in milliseconds.
func (a *App) milliseconds(word string, line int, key string, ms int64) {
	const longest = int64(365 * 24 * time.Hour / time.Millisecond) // more than any key takes, and no overflow
	a.set(word, line, key, app.FormatTimeSpan(time.Duration(max(0, min(ms, longest)))*time.Millisecond))
}

// env adds one variable of the environment. Secrets go to the app's own file. If all is true, all
// variables count as secrets.
func (a *App) env(word string, line int, key, value string, all bool) {
	switch {
	case a.full():
	case !app.IsVariable(key):
		a.note(word, line, "PID 1 takes no variable named "+strconv.Quote(key))
	case app.SetBySystemd(key):
		a.note(word, line, key+" is set by systemd for each instance")
	case all || secret(key, value):
		a.forget(key)
		if err := (app.Assignment{Key: key, Value: value}).Check(); err != nil {
			a.note(word, line, app.InKeys(err.Error())) // in its file it would keep the instances from starting
			return
		}
		a.Secrets = append(a.Secrets, app.Assignment{Key: key, Value: value})
		a.became(word, line, string(a.Name)+".env: "+key)
	default:
		a.forget(key)
		a.set(word, line, "Environment", key+"="+value)
	}
}

// forget removes a variable that gets another value: a variable in a file wins over those outside.
func (a *App) forget(key string) {
	for i := len(a.Settings) - 1; i >= 0; i-- {
		if s := a.Settings[i]; s.Key == "Environment" && strings.HasPrefix(s.Values[0], key+"=") {
			a.leaveSetting(i, "a later "+key+" counts")
		}
	}
	a.Secrets = slices.DeleteFunc(a.Secrets, func(s app.Assignment) bool { return s.Key == key })
}

// variable returns a variable of the app's environment.
func (a *App) variable(key string) (value string, ok bool) {
	for _, s := range a.Settings {
		if k, v, _ := strings.Cut(s.Values[0], "="); s.Key == "Environment" && k == key {
			value, ok = v, true
		}
	}
	for _, s := range a.Secrets {
		if s.Key == key {
			value, ok = s.Value, true
		}
	}
	return value, ok
}

// settingLine returns a setting as a line of the .unitgen file.
func settingLine(key string, values []string) string {
	words := make([]string, len(values))
	for i, v := range values {
		if words[i] = v; !spansWords(key) {
			words[i] = app.QuoteWord(v)
		}
	}
	return key + "=" + strings.Join(words, " ")
}

// spansWords reports whether a value of the key may have blanks without quotes (unitgen(5)).
func spansWords(key string) bool { return strings.HasSuffix(key, "Sec") || key == "ReloadAt" }
