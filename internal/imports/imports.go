// Package imports turns what other process managers know of a program into .unitgen files
// (unitgen(5)): ecosystem files and dump.pm2 of PM2, Procfiles, programs of supervisord, and
// hand-written units of systemd.
//
// Each source is one file of the package with one function, which reads text and gives apps: their
// settings, and for each word of the source what became of it. Nothing that a source says is passed
// over in silence. The package starts nothing but node for an ecosystem file in JavaScript
// (javascript.go), asks no manager, and writes with Write alone.
//
//	imports.go     which source a file is
//	fate.go        an app, and what became of each word of its source
//	tree.go        JSON and YAML, with the numbers of lines
//	pm2.go         PM2: the table of its keys
//	pm2command.go  PM2: the command
//	pm2dump.go     PM2: its list of processes
//	javascript.go  PM2: a file that is a program
//	cron.go        times of cron -> calendar expressions
//	procfile.go    Procfile and .env
//	ini.go         supervisord: the file, glob.go the files that it includes
//	supervisord.go supervisord: its programs
//	unit.go        units of systemd
//	unitcommand.go units of systemd: ExecStart=
//	words.go       command lines of shells
//	secret.go      which values are secrets
//	check.go       what is wrong with the apps that came out
//	trust.go       what a user's source may not say for root
//	write.go       .unitgen files and files of environments
//	report.go      what became of what
package imports

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// Options says how to read a source.
type Options struct {
	Path  string   // absolute, of the source
	Shown string   // the same as the user wrote it, for messages
	Only  []string // the apps that are wanted; none: all
	Env   string   // of an ecosystem file: takes env_NAME over env
	User  string   // User= of every app, whatever the source says

	UserUnits bool // the apps are units of a user's own manager
	Root      bool // this process is root's, whose environment is not for the files of others

	CPUs   func() int
	Getenv func(string) string

	// JavaScript returns the JSON of the configuration that the file at Path exports, and the user
	// who ran it.
	JavaScript func(ctx context.Context, path string) (json []byte, uid uint32, err error)
}

// Import is the result of reading a source.
type Import struct {
	Shown string // the source, for people
	Apps  []*App
	Rest  Fates // words of the source that are about no app
	Env   bool  // the apps' environment is a shell's, so that all of it counts as secret

	read []readFile // the source first
}

// maxSource is the maximum size of a source in bytes, the same as that of a .unitgen file.
const maxSource = app.MaxFile

// maxApps is how many apps may come of one source. A file with more is no configuration.
const maxApps = 1000

// maxWords is how many words of a source may be about one app, or about none. Each word is compared
// with those before it.
const maxWords = 1000

// Read reads the source and returns its apps, each of which can be written. The error is all that
// is wrong with it, as joined InputErrors that begin with "PATH:LINE: ", unless a file cannot be
// read or node fails.
func Read(ctx context.Context, o Options) (*Import, error) {
	read, err := sourceOf(o.Path)
	if err != nil {
		return nil, err
	}
	s := &source{Options: o, ctx: ctx, result: &Import{Shown: o.Shown}}
	if err := read(s); err != nil {
		return nil, err
	}
	if err := s.choose(); err != nil {
		return nil, err
	}
	return s.result, s.finish()
}

// source is one run.
type source struct {
	Options
	ctx    context.Context
	result *Import
	errs   []error
	names  int // that were compared with patterns of files
	bytes  int // of files that were read
}

// sourceOf picks the reader by the file's name, as each of these programs does.
func sourceOf(path string) (func(*source) error, error) {
	base := filepath.Base(path)
	lower := strings.ToLower(base)
	switch filepath.Ext(lower) {
	case ".js", ".cjs", ".mjs":
		return (*source).javaScript, nil
	case ".json", ".yaml", ".yml":
		if lower == "package.json" {
			return nil, &app.InputError{Msg: fmt.Sprintf("%s describes a package, not the apps that run", path), Hint: "unitgen app --now -- npm start"}
		}
		return (*source).ecosystem, nil
	case ".service":
		return (*source).unit, nil
	case ".conf", ".ini":
		return (*source).supervisord, nil
	}
	switch {
	case base == "dump.pm2" || base == "dump.pm2.bak":
		return (*source).dump, nil
	case base == "Procfile" || strings.HasPrefix(base, "Procfile."):
		return (*source).procfile, nil
	}
	return nil, &app.InputError{Msg: fmt.Sprintf("%s is no source that import knows: ecosystem.config.js, .cjs, .mjs, .json or .yaml, dump.pm2, Procfile, supervisord.conf or APP.service", path),
		Hint: "unitgen import ecosystem.config.js"}
}

// Starting returns the apps that can be made and that the source starts.
func (m *Import) Starting() []*App {
	return slices.DeleteFunc(slices.Clone(m.Apps), func(a *App) bool { return a.Skip != "" || a.Stopped })
}

// Listens reports whether the source says where the app is served.
func (a *App) Listens() bool { return a.has("Listen") }

// dir is the directory of the source. Relative paths of the source count from there.
func (s *source) dir() string { return filepath.Dir(s.Path) }

// text reads the source.
func (s *source) text() (string, error) {
	text, err := s.readText(s.Path, s.Shown)
	if err != nil {
		return "", s.fault(s.Shown, 0, "", "it cannot be read: %v", fault.WithoutPath(err))
	}
	return text, nil
}

// readText reads a file of the source, within the limits of all its files, and notes whose it is.
func (s *source) readText(path, shown string) (string, error) {
	if len(s.result.read) >= maxFiles {
		return "", fmt.Errorf("there are more than %d files", maxFiles)
	}
	text, owner, err := readText(path)
	if s.bytes += len(text); err == nil && s.bytes > maxBytes {
		err = fmt.Errorf("the files have more than %d bytes", maxBytes)
	}
	if err == nil {
		s.result.read = append(s.result.read, readFile{shown, owner})
	}
	return text, err
}

// owner returns the owner of a file of the source, by the file's name in messages.
func (s *source) owner(shown string) uint32 {
	for _, f := range s.result.read {
		if f.shown == shown {
			return f.owner
		}
	}
	return 0
}

// readText reads a regular file of at most maxSource bytes, and returns its owner. It does not wait
// for a pipe, whose open(2) would block until somebody writes.
func readText(path string) (text string, owner uint32, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	if !st.Mode().IsRegular() {
		return "", 0, errors.New("it is no regular file")
	}
	content, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err == nil && len(content) > maxSource {
		err = fmt.Errorf("it must have at most %d bytes", maxSource)
	}
	return string(content), st.Sys().(*syscall.Stat_t).Uid, err
}

// fail notes what is wrong at a line of the source. Line 0 means no line.
func (s *source) fail(line int, hint, format string, args ...any) {
	s.errs = append(s.errs, s.fault(s.Shown, line, hint, format, args...))
}

func (s *source) fault(path string, line int, hint, format string, args ...any) error {
	return app.FileError(path, line, &app.InputError{Msg: fmt.Sprintf(format, args...), Hint: hint})
}

// add returns a new app of the source. name is the source's name for it, and word is where the
// source says so.
func (s *source) add(name, word string, line int) *App {
	a := &App{place: place{word, line, s.Shown}}
	a.Name, a.err = appName(name)
	if a.err == nil && string(a.Name) != name {
		a.note(word, line, fmt.Sprintf("%q is no name of units", name))
	}
	s.result.Apps = append(s.result.Apps, a)
	return a
}

// appName makes the name of an app from a name of another program. Characters that names of units
// cannot have become "-".
func appName(name string) (app.Name, error) {
	mapped := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(":-_.", r) {
			return r
		}
		return '-'
	}, name)
	return app.ParseName(strings.TrimLeft(mapped, "-."))
}

// choose keeps the apps that the user wants.
func (s *source) choose() error {
	if len(s.Only) == 0 {
		return errors.Join(s.errs...)
	}
	var names []string
	for _, a := range s.result.Apps {
		names = append(names, string(a.Name))
	}
	for _, want := range s.Only {
		if !slices.Contains(names, want) {
			s.fail(0, "", "there is no app %q; there are: %s", want, cmp.Or(strings.Join(names, ", "), "none"))
		}
	}
	s.result.Apps = slices.DeleteFunc(s.result.Apps, func(a *App) bool { return !slices.Contains(s.Only, string(a.Name)) })
	return errors.Join(s.errs...)
}

// named reports whether the user asked for this app by name.
func (s *source) named(name app.Name) bool { return slices.Contains(s.Only, string(name)) }
