package apps

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// App is an app under test.
type App struct {
	*System
	T    *testing.T
	Name string
	Port int
	N    int // instances

	Runtime string // $XDG_RUNTIME_DIR of the user whose app it is; empty: the system's
}

// New writes the units of an app of three instances on a port of its own, unless --instances=N or
// --listen= say otherwise. The words are further options of unitgen, behind them "--" and a
// command; without a command it is the system's. The app is stopped and removed at the test's end;
// a failed test logs its journal.
func New(t *testing.T, s *System, name string, words ...string) *App {
	t.Helper()
	return NewAt(t, s, s.NewPort(), name, words...)
}

// NewAt is New for a port from NewPort.
func NewAt(t *testing.T, s *System, port int, name string, words ...string) *App {
	t.Helper()
	a := &App{System: s, T: t, Name: name, Port: port, N: 3}
	args := []string{"--instances=" + strconv.Itoa(a.N)}
	if !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "--listen=") }) {
		args = append(args, "--listen="+strconv.Itoa(a.Port))
	}
	for _, w := range words {
		if n, ok := strings.CutPrefix(w, "--instances="); ok {
			var err error
			if a.N, err = strconv.Atoi(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if args = append(args, words...); !slices.Contains(words, "--") {
		args = append(append(args, "--"), s.Program...)
	}
	t.Cleanup(a.remove)
	a.Unitgen(args...)
	return a
}

// Size is the option for an app of two instances, the fewest of which some are new and some are not,
// or in make test-all of more.
func Size(all int) string {
	if rig.All() {
		return "--instances=" + strconv.Itoa(all)
	}
	return "--instances=2"
}

// Start is New with --now, and waits until all instances are up.
func Start(t *testing.T, s *System, name string, words ...string) *App {
	t.Helper()
	a := New(t, s, name, append([]string{"--now"}, words...)...)
	a.AwaitUp(a.N)
	return a
}

// NewBy is New by a line for a shell, which is typed in folder dir and must make an app of that
// name, port and number of instances.
func NewBy(t *testing.T, s *System, dir, line, name string, port, n int) *App {
	t.Helper()
	a := &App{System: s, T: t, Name: name, Port: port, N: n}
	t.Cleanup(a.remove)
	s.MustExec(t, "sh", "-c", `cd "$1" && `+line, "sh", dir)
	return a
}

// remove removes the app as its user would. Drop-ins are not unitgen's to remove, and what a test
// left in a bad state must not meet the next one.
func (a *App) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), Limit) // the test's own has ended
	defer cancel()
	if a.T.Failed() {
		a.logJournal(ctx)
	}
	if out, err := a.Exec(ctx, "unitgen", "remove", a.Name); err != nil || out.Status != 0 {
		a.T.Errorf("unitgen remove %s = %+v, %v", a.Name, out, err)
	}
	const script = `for d in /etc/systemd/system/"$1".*.d /etc/systemd/system/"$1"[@-]*.d; do
			[ ! -d "$d" ] || { rm -r "$d"; stale=1; }
		done
		[ -z "$stale" ] || systemctl daemon-reload
		systemctl stop "$1.*" "$1[@-]*"; systemctl reset-failed "$1.*" "$1[@-]*"`
	if _, err := a.Exec(ctx, "sh", "-c", script, "sh", a.Name); err != nil {
		a.T.Errorf("clean up after %s: %v", a.Name, err)
	}
}

func (a *App) logJournal(ctx context.Context) {
	const lines = 150
	text, err := a.Journal(ctx, a.Name+"*")
	all := strings.SplitAfter(text, "\n")
	a.T.Logf("journal of %s (%v):\n%s", a.Name, err, strings.Join(all[max(0, len(all)-lines):], ""))
}

// Names of the app's units.
func (a *App) Shim() string          { return a.Name + ".service" }
func (a *App) Instance(i int) string { return a.Name + "@" + strconv.Itoa(i) + ".service" }
func (a *App) Socket(i int) string   { return a.Name + "@" + strconv.Itoa(i) + ".socket" }

// Addr is where clients connect.
func (a *App) Addr() string { return fmt.Sprintf("127.0.0.1:%d", a.Port) }

// Unitgen changes the app.
func (a *App) Unitgen(args ...string) {
	a.T.Helper()
	a.MustExec(a.T, append([]string{"unitgen", a.Name}, args...)...)
}

// MustSystemctl runs systemctl, whose failure ends the test.
func (a *App) MustSystemctl(args ...string) {
	a.T.Helper()
	a.MustExec(a.T, append([]string{"systemctl"}, args...)...)
}

// Reload is "systemctl reload", which must succeed.
func (a *App) Reload() {
	a.T.Helper()
	a.MustSystemctl("reload", a.Name)
}

// AwaitUp waits until the shim says that n instances take connections, that no other one exists,
// and nothing else.
func (a *App) AwaitUp(n int) {
	a.T.Helper()
	a.AwaitStatus(fmt.Sprintf("%d/%d instances up", n, n))
}

// AwaitStatus waits until the shim's status line contains words.
func (a *App) AwaitStatus(words string) {
	a.T.Helper()
	a.MustWait(a.T, Limit, a.Shim(), func(p rig.Properties) bool {
		return (p["ActiveState"] == "active" || p["ActiveState"] == "reloading") && strings.Contains(p["StatusText"], words)
	})
}

// AwaitNew waits until unit is active in another process than pid.
func (a *App) AwaitNew(unit, pid string) {
	a.T.Helper()
	a.MustWait(a.T, Limit, unit, func(p rig.Properties) bool { return p["ActiveState"] == "active" && p["MainPID"] != pid })
}

// PID is the main process of unit, "0" if it has none.
func (a *App) PID(unit string) string {
	a.T.Helper()
	return a.MustShow(a.T, unit, "MainPID")
}

// PIDs are the main processes of the instances.
func (a *App) PIDs() map[int]string {
	a.T.Helper()
	pids := make(map[int]string)
	for i := 1; i <= a.N; i++ {
		pids[i] = a.PID(a.Instance(i))
	}
	return pids
}

// Signal sends a signal to the main process of unit. It returns when SIGSTOP has stopped all of its
// threads: until the first of them has run, the others go on.
func (a *App) Signal(unit, name string) {
	a.T.Helper()
	pid := a.PID(unit)
	a.MustExec(a.T, "kill", "-s", name, pid)
	if name != "STOP" {
		return
	}
	running := "grep -L '^State:.*T (stopped)' /proc/" + pid + "/task/*/status"
	for end := time.Now().Add(Limit); time.Now().Before(end); {
		out, err := a.Exec(a.T.Context(), "sh", "-c", running)
		if err != nil {
			a.T.Fatal(err)
		}
		if out.Stdout == "" && out.Stderr == "" {
			return
		}
	}
	a.T.Fatalf("process %s of %s is not stopped", pid, unit)
}

// DropIn adds settings to a unit until the test's end or the function that it returns is called. It
// reloads PID 1.
func (a *App) DropIn(unit, text string) (undo func()) {
	a.T.Helper()
	file := "/etc/systemd/system/" + unit + ".d/test.conf"
	a.MustWriteFile(a.T, file, text, 0o644)
	a.MustSystemctl("daemon-reload")
	return func() {
		a.T.Helper()
		a.MustExec(a.T, "rm", file)
		a.MustSystemctl("daemon-reload")
	}
}

// Log is what the units of the app that match pattern have in the journal.
func (a *App) Log(pattern string) string {
	a.T.Helper()
	text, err := a.Journal(a.T.Context(), pattern)
	if err != nil {
		a.T.Fatal(err)
	}
	return text
}
