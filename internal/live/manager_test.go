package live

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/systemd"
	"github.com/unitgen/unitgen/internal/systemd/systemdtest"
)

// machine is a site with app web on a machine whose manager is a stand-in.
type machine struct {
	*Manager
	t    *testing.T
	pid1 *systemdtest.Manager
	told []string // steps, but for those of single instances
}

// newMachine connects to a manager under which every job of an app does what it does under systemd.
func newMachine(t *testing.T) *machine {
	t.Helper()
	b := systemdtest.NewBus(t)
	h := &machine{t: t, pid1: systemdtest.NewManager(t, b)}
	root := t.TempDir()
	for _, dir := range []string{"/etc/systemd/system", "/run"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	m, err := Dial(t.Context(), Options{
		Site: plan.Site{Root: root, Dir: root + "/etc/systemd/system", Lbshim: "/lbshim"}, EUID: 1000, Now: time.Now,
		Getenv: func(key string) string {
			return map[string]string{"DBUS_SYSTEM_BUS_ADDRESS": b.Address}[key]
		},
		Tell: func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Step != Instance && e.Step != Wrote {
				h.told = append(h.told, e.String())
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	h.Manager = m
	h.pid1.Act = h.act
	return h
}

// act is what a job does where nothing fails.
func (h *machine) act(verb, unit string) string {
	up := "active"
	if verb == "StopUnit" {
		up = "inactive"
	}
	if unit == "web.service" && verb != "ReloadUnit" {
		for _, i := range h.Site.Instances("web") {
			h.pid1.Run(app.Name("web").Instance(i), up)
			h.pid1.Run(app.Name("web").InstanceSocket(i), up)
		}
		h.pid1.Run("web.socket", up)
	}
	h.pid1.Run(unit, up)
	return "done"
}

// plan is what takes the site to an app with n instances.
func (h *machine) plan(n int, change func(*app.App)) *plan.Plan {
	h.t.Helper()
	d, err := h.Site.Read("web")
	if err != nil {
		h.t.Fatal(err)
	}
	a := app.App{Name: "web", Command: []string{"/bin/true"}, Listen: []app.Listen{{Port: 3000}}, SystemdVersion: 257}
	if change != nil {
		change(&a)
	}
	p, err := d.For(a, n)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// apply applies a plan, and returns what was asked of PID 1 and what was told.
func (h *machine) apply(p *plan.Plan, now bool) (calls, told []string) {
	h.t.Helper()
	err := h.Apply(h.t.Context(), p, Applying{Now: now, Release: func() {}})
	if err != nil {
		h.t.Fatal(err)
	}
	calls, told = h.pid1.Called(), h.told
	h.told = nil
	return calls, told
}

func (h *machine) wants(what string, calls []string, want ...string) {
	h.t.Helper()
	if !slices.Equal(calls, want) {
		h.t.Errorf("%s: PID 1 was asked for\n%q, want\n%q", what, calls, want)
	}
}

// Each step asks PID 1 for what has changed and for nothing else, and a step that is done asks for
// nothing.
func TestApply(t *testing.T) {
	h := newMachine(t)
	calls, told := h.apply(h.plan(2, nil), false)
	h.wants("written", calls, "Reload")
	if line := told[len(told)-1]; !strings.Contains(line, "systemctl enable --now web") {
		t.Errorf("told %q", told)
	}
	calls, _ = h.apply(h.plan(2, nil), false)
	h.wants("written again", calls)
	calls, told = h.apply(h.plan(2, nil), true)
	h.wants("started", calls, "EnableUnitFiles web.service", "Reload", "StartUnit web.service")
	if line := told[len(told)-1]; !strings.HasPrefix(line, "web: 2/2 instances up at port 3000") {
		t.Errorf("told %q", told)
	}
	calls, _ = h.apply(h.plan(3, nil), false)
	h.wants("one more", calls, "Reload", "StartUnit web@3.service")
	calls, _ = h.apply(h.plan(1, nil), false)
	h.wants("two fewer", calls, "Reload", "StopUnit web@3.service", "StopUnit web@2.service", "StopUnit web@3.socket", "StopUnit web@2.socket")
	calls, told = h.apply(h.plan(1, func(a *app.App) { a.Soak = time.Minute }), false)
	h.wants("another setting", calls, "Reload")
	if line := told[len(told)-1]; strings.Contains(line, "web.service") {
		t.Errorf("told %q", told)
	}
}

// The instances of an app that runs by units of before app-join.service have joined already.
func TestApplyAdoptsJoined(t *testing.T) {
	h := newMachine(t)
	h.apply(h.plan(2, nil), true)
	if _, err := os.Stat(filepath.Join(h.appDir("web"), app.JoinedName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("notes of a new app: %v", err)
	}
	if err := os.Remove(filepath.Join(h.Site.Dir, "web-join.service")); err != nil {
		t.Fatal(err)
	}
	h.pid1.Run("web-join@2.service", "active")
	h.pid1.Run("web-join@1.service", "failed")
	h.apply(h.plan(2, nil), false)
	notes, _ := filepath.Glob(filepath.Join(h.appDir("web"), app.JoinedName, "*", "*"))
	if want := []string{filepath.Join(h.appDir("web"), app.JoinedName, "2", app.JoinedFile)}; !slices.Equal(notes, want) {
		t.Errorf("notes are %q, want %q", notes, want)
	}
}

// An app whose listeners change is stopped and started again. A run that is killed while the app is
// stopped is noticed.
func TestApplyOtherListeners(t *testing.T) {
	h := newMachine(t)
	h.apply(h.plan(1, nil), true)
	moved := func(a *app.App) { a.Listen[0].Port = 4000 }
	calls, told := h.apply(h.plan(1, moved), false)
	h.wants("moved, first", calls[:3], "StopUnit web.socket", "StopUnit web-control.socket", "StopUnit web.service")
	h.wants("moved, last", calls[len(calls)-2:], "Reload", "StartUnit web.service")
	if len(told) < 3 || !strings.Contains(told[len(told)-1], "port 4000") {
		t.Errorf("told %q", told)
	}
	note := h.stoppedNote("web")
	if _, err := os.Stat(note); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the note is there: %v", err)
	}
	h.act("StopUnit", "web.service")
	if err := os.WriteFile(note, []byte("web.service"), 0o600); err != nil {
		t.Fatal(err)
	}
	calls, _ = h.apply(h.plan(1, moved), false)
	if len(calls) == 0 || calls[len(calls)-1] != "StartUnit web.service" {
		t.Errorf("after a run that was killed: %q", calls)
	}
}

// Why instances did not start is said, whatever else is up.
func TestStartFails(t *testing.T) {
	h := newMachine(t)
	p := h.plan(2, nil)
	h.apply(p, false)
	h.pid1.Lock()
	h.pid1.Act = func(verb, unit string) string {
		h.pid1.Run("web.service", "active")
		h.pid1.Run("web@1.service", "active")
		for range failuresToTell {
			h.pid1.Run("web@2.service", "activating", "SubState", "auto-restart", "Result", "exit-code")
			h.pid1.Run("web@2.service", "failed", "Result", "exit-code")
		}
		return "done"
	}
	h.pid1.Unlock()
	err := h.Start(t.Context(), p.App)
	if err == nil || !strings.HasPrefix(err.Error(), "web: 1/2 instances up at port 3000") {
		t.Errorf("got %v", err)
	}
	h.wants("a start", h.pid1.Called(), "StartUnit web.service")

	// The next start does not wait for PID 1's next try.
	h.pid1.Lock()
	h.pid1.Act = h.act
	h.pid1.Unlock()
	if err := h.Start(t.Context(), p.App); err != nil {
		t.Error(err)
	}
	h.wants("a start again", h.pid1.Called(), "ResetFailedUnit web@2.service", "ResetFailedUnit web@2.socket", "RestartUnit web@2.service", "StartUnit web.service")
}

// A balancer that does not start fails the start at once, with its result.
func TestStartOfBalancerFails(t *testing.T) {
	h := newMachine(t)
	p := h.plan(1, nil)
	h.apply(p, false)
	h.pid1.Lock()
	h.pid1.Act = func(string, string) string {
		h.pid1.Run("web.service", "failed", "Result", "exit-code")
		return "failed"
	}
	h.pid1.Unlock()
	err := h.Start(t.Context(), p.App)
	if err == nil || !strings.Contains(err.Error(), `job ended with result "failed"; result of web.service: exit-code`) {
		t.Errorf("got %v", err)
	}
	if hint := fault.Hint(err); hint != "journalctl -u web -u 'web@*' -e" {
		t.Errorf("hint %q", hint)
	}
}

// What there is nothing to reload of is said in words, and PID 1 is not asked.
func TestReloadOfNothing(t *testing.T) {
	h := newMachine(t)
	a := app.App{Name: "web"}
	for _, test := range []struct{ socket, want string }{{"inactive", "web does not run"}, {"active", "web is idle: the next connection starts it"}} {
		h.pid1.Run("web.socket", test.socket)
		err := h.Do(t.Context(), a, systemd.Reload, Interruption{})
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
	h.wants("reloads", h.pid1.Called())
}

// A reload that is cancelled has its process told to end, once.
func TestReloadIsCancelled(t *testing.T) {
	h := newMachine(t)
	p := h.plan(1, nil)
	h.apply(p, true)
	interrupted, killed := make(chan struct{}), make(chan struct{})
	h.pid1.Lock()
	h.pid1.Act = func(verb, unit string) string {
		h.pid1.Run("web.service", "reloading", "ControlPID", uint32(77))
		close(interrupted)
		<-killed
		return "failed"
	}
	h.pid1.Noted = func(call string) {
		if strings.HasPrefix(call, "KillUnit") {
			close(killed)
		}
	}
	h.pid1.Unlock()
	err := h.Do(t.Context(), p.App, systemd.Reload, Interruption{Wanted: interrupted, Cancel: func() bool { return true }})
	if !errors.Is(err, ErrCancelled) || fault.Hint(err) != "systemctl reload web" {
		t.Errorf("got %v", err)
	}
	h.wants("a cancelled reload", h.pid1.Called(), "ReloadUnit web.service", "KillUnit web.service control 15")
}

// A stop that a connection has cancelled is asked for again, a few times.
func TestStopIsCancelled(t *testing.T) {
	h := newMachine(t)
	for _, test := range []struct{ cancels, asked int }{{0, 1}, {1, 2}, {9, stopTries}} {
		left := test.cancels
		h.pid1.Lock()
		h.pid1.Act = func(string, string) string {
			if left--; left >= 0 {
				return "canceled"
			}
			return "done"
		}
		h.pid1.Unlock()
		err := h.stopUnits(t.Context(), []string{"web.service"})
		if calls := h.pid1.Called(); len(calls) != test.asked || (err != nil) != (test.cancels >= stopTries) {
			t.Errorf("%d cancels: %q, %v", test.cancels, calls, err)
		}
	}
}

// An app goes with its units, notes and failed states, and what a removal cannot delete it does not
// stop.
func TestRemove(t *testing.T) {
	h := newMachine(t)
	h.apply(h.plan(1, nil), true)
	h.pid1.Lock()
	h.pid1.Act = func(verb, unit string) string {
		if unit == "web@7.service" {
			return "done" // it stays failed
		}
		return h.act(verb, unit)
	}
	h.pid1.Unlock()
	h.pid1.Run("web@7.service", "failed")
	runtime, persistent := h.drainNotes("web")
	if _, err := writeNotes(runtime, persistent); err != nil {
		t.Fatal(err)
	}
	changes, err := h.Site.Removals("web")
	if err != nil {
		t.Fatal(err)
	}
	h.pid1.Called()
	if err := h.Remove(t.Context(), "web", changes); err != nil {
		t.Fatal(err)
	}
	calls := h.pid1.Called()
	if want := []string{"StopUnit web.socket", "StopUnit web-control.socket", "StopUnit web.service"}; !slices.Equal(calls[:3], want) {
		t.Errorf("first %q, want %q", calls[:3], want)
	}
	if want := []string{"Reload", "ResetFailedUnit web@7.service"}; !slices.Equal(calls[len(calls)-2:], want) {
		t.Errorf("last %q, want %q", calls[len(calls)-2:], want)
	}
	for _, path := range []string{runtime, persistent, h.Site.Dir + "/web.service", h.appDir("web")} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there: %v", path, err)
		}
	}
}

// balancer answers the control socket of an app, and notes what it is asked for.
type balancer struct {
	sync.Mutex
	asked  []string // methods with their parameters
	answer any
	refuse error
}

func (b *balancer) handle(_ context.Context, r *control.Request) (any, error) {
	b.Lock()
	defer b.Unlock()
	b.asked = append(b.asked, r.Method+" "+string(r.Parameters))
	return b.answer, b.refuse
}

// refuses says with what error each call is answered from now on, and returns what was asked so
// far.
func (b *balancer) refuses(name, reason string) (asked []string) {
	b.Lock()
	defer b.Unlock()
	b.refuse = &control.Error{Name: name, Reason: reason}
	return b.asked
}

// starts has the app run with this balancer.
func (h *machine) starts(b *balancer) {
	h.t.Helper()
	path := h.controlPath("web")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		(&control.Server{Handle: b.handle, UID: os.Getuid()}).Serve(ctx, ln)
	}()
	h.t.Cleanup(func() { cancel(); <-ended })
	h.pid1.Run("web.service", "active")
}

// A host is drained by a note, and by the balancer where it runs. A balancer that cannot do it
// leaves no note.
func TestDrainHost(t *testing.T) {
	h := newMachine(t)
	if serving, err := h.DrainHost(t.Context(), "web", HostDrain{}); serving || err != nil || h.DrainedSince("web") == nil {
		t.Errorf("of an app that does not run: %v, %v, drained since %v", serving, err, h.DrainedSince("web"))
	}
	if err := h.UndrainHost(t.Context(), "web"); err != nil || h.DrainedSince("web") != nil {
		t.Errorf("undrained: %v, drained since %v", err, h.DrainedSince("web"))
	}
	b := &balancer{answer: control.Host{}}
	h.starts(b)
	if serving, err := h.DrainHost(t.Context(), "web", HostDrain{Persist: true}); !serving || err != nil {
		t.Errorf("got %v, %v", serving, err)
	}
	if err := h.UndrainHost(t.Context(), "web"); err != nil || h.DrainedSince("web") != nil {
		t.Errorf("undrained: %v, drained since %v", err, h.DrainedSince("web"))
	}
	asked := b.refuses(control.ErrMethodNotFound, "")
	if len(asked) != 2 || !strings.HasPrefix(asked[0], "DrainHost ") || !strings.Contains(asked[0], "true") || strings.Contains(asked[1], "true") {
		t.Errorf("the balancer was asked for %q", asked)
	}
	if _, err := h.DrainHost(t.Context(), "web", HostDrain{Persist: true}); err == nil || fault.Hint(err) != "systemctl restart web" || h.DrainedSince("web") != nil {
		t.Errorf("an older balancer: %v, drained since %v", err, h.DrainedSince("web"))
	}
}

func TestSend(t *testing.T) {
	h := newMachine(t)
	if err := h.Send(t.Context(), "web", 0, json.RawMessage(`1`)); err == nil || err.Error() != "web does not run" {
		t.Errorf("of an app that does not run: %v", err)
	}
	b := &balancer{answer: control.Sent{Instances: []int{1}, Dropped: []int{2}}}
	h.starts(b)
	err := h.Send(t.Context(), "web", 0, json.RawMessage(`{"a":1}`))
	asked := b.refuses(control.ErrInvalid, "no such instance")
	if err == nil || err.Error() != "web@2 does not read its messages, so it does not get this one" ||
		len(asked) != 1 || !strings.HasPrefix(asked[0], "Send ") || !strings.Contains(asked[0], `{"a":1}`) {
		t.Errorf("got %v, and the balancer was asked for %q", err, asked)
	}
	if err := h.Send(t.Context(), "web", 9, json.RawMessage(`1`)); !fault.IsInput(err) || err.Error() != "no such instance" {
		t.Errorf("got %v", err)
	}
}
