// Package explain says why an instance did not get ready, in the program's terms, and what to type.
// It combines the states and journal messages of PID 1, the output of the program, what the command
// that waited for the instance saw of its sockets (Seen), the host's files and the kernel's socket
// tables.
//
// It runs only after a failure. Each Instance costs one run of journalctl(1) over at most
// journalLines entries, some properties of the unit and, if an address is in use, one walk through
// /proc. No connection waits for any of it.
//
// The shim cannot use it, as it may read neither the journal nor other processes; the shim can only
// use State. The output of a program may be secret. So Reason.String is for the journal and for the
// terminal of a user who may read the journal, and State is for text that every user may read, such
// as a status line.
package explain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Reason is why an instance is not up. The zero Reason means that the reason is unknown.
type Reason struct {
	What string // a clause that continues "app@1 did not get ready: "
	Said string // the program's most telling line; empty where it adds nothing to What
	Hint string // one line to paste; empty if there is nothing to type
}

// String returns What and Said in one line.
func (r Reason) String() string {
	if r.Said == "" {
		return r.What
	}
	return fmt.Sprintf("%s; it said %q", r.What, r.Said)
}

// Question is about one app.
type Question struct {
	Conn       *systemd.Conn
	App        app.Name
	UserUnits  bool
	RuntimeDir string    // the app's, where the notes of Seen are
	Since      time.Time // what happened before it is not looked at; zero means the last hour
	Trial      *Trial    // the run to explain is this, and of no instance; nil for instances
}

// Trial is a run of the program of an app that is not written yet.
type Trial struct {
	Unit   string
	App    app.App
	Retype func(options string) string // the command that makes the app, with further options; "-- COMMAND" replaces its command
}

// recent is how far back a question without Since looks.
const recent = time.Hour

// Instance says why the latest run of instance number that has failed did so, as far as that can be
// told; the zero Reason for none.
//
// PID 1 may have restarted the instance meanwhile, so the latest invocation that has ended with a
// reason counts, not the present one. An invocation that ended because the app stopped has none.
func (q Question) Instance(ctx context.Context, number int) (Reason, error) {
	unit := q.App.Instance(number)
	if q.Trial != nil {
		unit = q.Trial.Unit
	}
	// Before PID 1 is asked: what is noted of a run is then not newer than what PID 1 says of it.
	seen, at, seenErr := ReadSeen(q.RuntimeDir, number)
	state, err := q.Conn.Unit(ctx, unit)
	if err != nil {
		return Reason{}, err
	}
	set, err := q.readSettings(ctx, unit)
	if err != nil {
		return Reason{}, err
	}
	c := &caseFile{Question: q, number: number, state: state, set: set}
	since := q.Since
	if since.IsZero() {
		since = time.Now().Add(-recent)
	}
	// The journal is optional: a user who may not read it gets what PID 1 reports to everybody.
	c.past, _ = c.readJournal(ctx, since)
	c.addResult()
	if seenErr == nil && at.After(since) {
		c.addSeen(seen)
	}
	return c.decide(ctx), nil
}

// caseFile is all that is known of one instance.
type caseFile struct {
	Question
	number int
	state  systemd.UnitState
	set    settings
	past   []*invocation // newest first
}

// addResult puts PID 1's present word to its run: PID 1 writes the result to the journal when all
// commands behind the program have ended, and one of them is a back-off that may take its time. And
// it logs that it starts the instance again when it does so.
func (c *caseFile) addResult() {
	for _, in := range c.past {
		if in.id != c.state.InvocationID {
			continue
		}
		if in.result == "" && c.state.Result != "success" {
			in.result = c.state.Result
		}
		in.restarts = in.restarts || c.state.AwaitsRestart()
	}
}

// addSeen puts what the waiting command saw to its invocation, unless it saw an end that PID 1 has
// not seen yet: only PID 1 knows how that program ended.
func (c *caseFile) addSeen(seen Seen) {
	if seen.Outcome == Ended && seen.Invocation == c.state.InvocationID && c.state.ExecMainCode == 0 {
		return
	}
	for _, in := range c.past {
		if in.id == seen.Invocation {
			in.seen = &seen
			return
		}
	}
	c.past = append([]*invocation{{id: seen.Invocation, seen: &seen}}, c.past...)
}

// decide goes from the latest invocation to earlier ones until one has a reason.
func (c *caseFile) decide(ctx context.Context) Reason {
	for i, in := range c.past {
		if !in.ended() {
			continue
		}
		if c.UserUnits && len(in.said) == 0 {
			in.said = wordsBefore(in, c.past[i+1:])
		}
		if r := c.judge(ctx, in); r.What != "" {
			if r.Hint == "" {
				r.Hint = c.logs()
			}
			return r
		}
	}
	if what := State(c.state); what != "" {
		return Reason{What: what, Hint: c.logs()}
	}
	return Reason{}
}

// wordsBefore returns what the program said in the latest of the earlier runs that ended with the
// same exit status. journald finds the unit of a user's process by looking at the process, so a line
// whose process has gone belongs to no unit; for PID 1's units it has their names from PID 1
// (client_context_read_cgroup in src/journal/journald-context.c).
func wordsBefore(in *invocation, earlier []*invocation) []string {
	at := slices.IndexFunc(earlier, func(e *invocation) bool {
		return len(e.said) > 0 && in.exitCode == "exited" && e.exitCode == "exited" && e.exitStatus == in.exitStatus
	})
	if at < 0 {
		return nil
	}
	return earlier[at].said
}

// logs returns the command that shows all output of the instance.
func (c *caseFile) logs() string {
	option := ""
	if c.UserUnits {
		option = " --user-units"
	}
	if c.Trial != nil {
		return "journalctl" + strings.TrimSuffix(option, "-units") + " -e -u " + c.Trial.Unit
	}
	return fmt.Sprintf("unitgen logs %s@%d%s", c.App, c.number, option)
}

// options is the command that changes the app by options.
func (c *caseFile) options(format string, args ...any) string {
	if c.Trial != nil {
		return c.Trial.Retype(fmt.Sprintf(format, args...))
	}
	if c.UserUnits {
		format = "--user-units " + format // before a "--"
	}
	return "unitgen " + string(c.App) + " " + fmt.Sprintf(format, args...)
}

// ReadApp reads the settings of an app from the file of its service, wherever PID 1 has found the
// file.
func ReadApp(ctx context.Context, conn *systemd.Conn, name app.Name) (app.App, error) {
	values, err := conn.Properties(ctx, name.Service(), "FragmentPath")
	if err != nil {
		return app.App{}, err
	}
	path, _ := values["FragmentPath"].(string)
	if path == "" {
		return app.App{}, fmt.Errorf("read settings of %s: %w", name, fs.ErrNotExist)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return app.App{}, fmt.Errorf("read settings of %s: %w", name, err)
	}
	return app.ParseSettings(name, string(text))
}

// settings are the settings of an instance's unit, drop-ins included, that decide what its program
// may do, and the app's settings.
type settings struct {
	app app.App

	user             string // User=; empty for none
	dynamic          bool   // DynamicUser=
	workingDirectory string // "/" for none
	protectHome      bool   // home directories are hidden
	privateTmp       bool
	privateDevices   bool
	noExec           bool // MemoryDenyWriteExecute=
	environmentFiles []string
	memoryMax        uint64 // 0 for none
	privateNetwork   bool
	calls            []string // that SystemCallFilter= lets through; none where it lists those that are refused
}

// isRoot reports whether the program runs as root.
func (s settings) isRoot() bool {
	return !s.dynamic && (s.user == "" || s.user == "root" || s.user == "0")
}

func (q Question) readSettings(ctx context.Context, unit string) (settings, error) {
	values, err := q.Conn.Properties(ctx, unit, "User", "DynamicUser", "WorkingDirectory", "ProtectHome", "PrivateTmp",
		"PrivateDevices", "MemoryDenyWriteExecute", "EnvironmentFiles", "MemoryMax", "PrivateNetwork", "SystemCallFilter")
	if err != nil {
		return settings{}, fmt.Errorf("read settings of %s: %w", unit, err)
	}
	s := settings{workingDirectory: "/"}
	s.user, _ = values["User"].(string)
	s.dynamic, _ = values["DynamicUser"].(bool)
	if dir, _ := values["WorkingDirectory"].(string); dir != "" {
		s.workingDirectory = dir
	}
	home, _ := values["ProtectHome"].(string)
	s.protectHome = home == "yes" || home == "tmpfs"
	s.privateTmp, _ = values["PrivateTmp"].(bool)
	s.privateDevices, _ = values["PrivateDevices"].(bool)
	s.noExec, _ = values["MemoryDenyWriteExecute"].(bool)
	s.privateNetwork, _ = values["PrivateNetwork"].(bool)
	if filter, _ := values["SystemCallFilter"].([]any); len(filter) == 2 && filter[0] == true {
		s.calls, _ = filter[1].([]string)
	}
	if limit, _ := values["MemoryMax"].(uint64); limit != ^uint64(0) {
		s.memoryMax = limit
	}
	files, _ := values["EnvironmentFiles"].([][]any)
	for _, f := range files {
		if path, ok := f[0].(string); ok {
			s.environmentFiles = append(s.environmentFiles, path)
		}
	}
	if q.Trial != nil {
		s.app = q.Trial.App
		return s, nil
	}
	s.app, err = ReadApp(ctx, q.Conn, q.App)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, app.ErrNoSettings) {
		return settings{}, err
	}
	return s, nil
}
