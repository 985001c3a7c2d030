package systemd

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/unitgen/unitgen/internal/systemd/systemdtest"
)

func TestUnitPath(t *testing.T) {
	// As `busctl call org.freedesktop.systemd1 … LoadUnit s NAME` answers.
	for name, want := range map[string]string{
		"app.service":   "app_2eservice",
		"app@1.service": "app_401_2eservice",
		"1app.service":  "_31app_2eservice",
		"-.mount":       "_2d_2emount",
		`a\x2d_b.slice`: "a_5cx2d_5fb_2eslice",
		"":              "_",
	} {
		if got := UnitPath(name); got != dbus.ObjectPath("/org/freedesktop/systemd1/unit/"+want) {
			t.Errorf("UnitPath(%q) = %s, want …/%s", name, got, want)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]int{"252.39-1~deb12u1": 252, "257": 257, "v258-rc1": 258, "257~rc2": 257} {
		if got, err := parseVersion(text); err != nil || got != want {
			t.Errorf("parseVersion(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	if got, err := parseVersion("unknown"); err == nil {
		t.Errorf("parseVersion(unknown) = %d, want an error", got)
	}
}

func TestEndpoints(t *testing.T) {
	if e := SystemEndpoint(1000, ""); e.Private != "" || e.Bus == "" {
		t.Errorf("unprivileged: %+v, want the bus alone", e)
	}
	if e := SystemEndpoint(0, "unix:path=/x"); e.Private != "/run/systemd/private" || e.Bus != "unix:path=/x" {
		t.Errorf("root: %+v", e)
	}
	if e := UserEndpoint("/run/user/7", ""); e.Private != "/run/user/7/systemd/private" || e.Bus != "unix:path=/run/user/7/bus" {
		t.Errorf("user: %+v", e)
	}
}

// A socket that accepts and never answers is what a bus under restart looks like.
func TestDialEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mute")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, e := range []Endpoint{{Private: path}, {Bus: "unix:path=" + path}} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		c, err := Dial(ctx, e)
		cancel()
		if err == nil {
			c.Close()
			t.Errorf("Dial(%+v) of a mute socket succeeded", e)
		}
	}
}

func TestDialNamesEveryWay(t *testing.T) {
	_, err := Dial(testContext(t), Endpoint{Private: "/nonexistent/private", Bus: "unix:path=/nonexistent/bus"})
	if err == nil || !strings.Contains(err.Error(), "/nonexistent/private") || !strings.Contains(err.Error(), "/nonexistent/bus") {
		t.Fatalf("error %v, want one that names both", err)
	}
}

// A connection that stays is made to the bus, which sends what was asked for alone. Where there is
// no bus, the manager's own socket is tried.
func TestDialToStayPrefersTheBus(t *testing.T) {
	b := systemdtest.NewBus(t)
	systemdtest.NewManager(t, b)
	private, err := net.Listen("unix", filepath.Join(t.TempDir(), "private"))
	if err != nil {
		t.Fatal(err)
	}
	defer private.Close()
	e := Endpoint{Private: private.Addr().String(), Bus: b.Address}
	c, err := DialToStay(testContext(t), e)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.link.private {
		t.Error("the connection is to the manager's own socket, though there is a bus")
	}
	private.Close()
	e.Bus = "unix:path=/nonexistent/bus"
	_, err = DialToStay(testContext(t), e)
	if err == nil || !strings.Contains(err.Error(), e.Private) || !strings.Contains(err.Error(), "/nonexistent/bus") {
		t.Errorf("without a bus: error %v, want one that names both", err)
	}
}

// A bus may be there before its manager, as a user's bus is after a login.
func TestDialToStayWithoutManager(t *testing.T) {
	c, err := DialToStay(testContext(t), Endpoint{Private: "/nonexistent/private", Bus: systemdtest.NewBus(t).Address})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.link.found || c.link.private {
		t.Errorf("manager found: %t, on its own socket: %t; there is none", c.link.found, c.link.private)
	}
}

func dialTest(t *testing.T, b *systemdtest.Bus) *Conn {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c, err := Dial(ctx, endpoint(b))
	if err != nil {
		t.Fatal(err)
	}
	cancel() // must not end the connection
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRun(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	for unit, result := range map[string]string{"good.service": "done", "also.service": "done", "bad.service": "failed", "idle.service": "skipped"} {
		m.Ends(unit, result)
	}
	c := dialTest(t, b)
	ctx := testContext(t)

	if v, err := c.Version(ctx); err != nil || v != 257 {
		t.Errorf("Version() = %d, %v", v, err)
	}
	for _, before := range []bool{false, true} {
		m.Lock()
		m.BeforeRun = before
		m.Unlock()
		if err := c.Run(ctx, Job{Verb: Start, Unit: "good.service"}, Job{Verb: Start, Unit: "also.service"}, Job{Verb: Stop, Unit: "idle.service"}); err != nil {
			t.Errorf("beforeRun=%v: %v", before, err)
		}
	}
	err := c.Run(ctx, Job{Verb: Start, Unit: "none.service"}, Job{Verb: Start, Unit: "bad.service"}, Job{Verb: Start, Unit: "good.service"})
	var job *JobError
	if !errors.As(err, &job) || job.Job.Unit != "bad.service" || job.Result != "failed" {
		t.Errorf("error %v, want the failed job of bad.service", err)
	}
	if !IsNoSuchUnit(err) || IsNoSuchUnit(job) {
		t.Errorf("error %v, want it to hold that none.service does not exist", err)
	}
	if err := c.Run(ctx); err != nil {
		t.Errorf("no jobs: %v", err)
	}
}

func TestRunParallel(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	m.Ends("a.service", "done")
	m.Ends("b.service", "timeout")
	c := dialTest(t, b)
	ctx := testContext(t)
	errs := make(chan error, 16)
	for range cap(errs) / 2 {
		go func() { errs <- c.Run(ctx, Job{Verb: Start, Unit: "a.service"}) }()
		go func() { errs <- c.Run(ctx, Job{Verb: Start, Unit: "b.service"}) }()
	}
	failed := 0
	for range cap(errs) {
		if err := <-errs; err != nil {
			failed++
		}
	}
	if failed != cap(errs)/2 {
		t.Errorf("%d of %d failed, want half", failed, cap(errs))
	}
}

func TestRunEndsWithConnection(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	c := dialTest(t, b)
	m.Ends("slow.service", "done")
	done := make(chan error, 1)
	m.Lock() // the answer to StartUnit waits for it
	go func() { done <- c.Run(testContext(t), Job{Verb: Start, Unit: "slow.service"}) }()
	b.Kill()
	m.Unlock()
	if err := <-done; !IsDisconnected(err) {
		t.Errorf("error %v, want one that IsDisconnected", err)
	}
	if _, err := Dial(testContext(t), endpoint(b)); !IsDisconnected(err) {
		t.Errorf("Dial without a bus: %v, want an error that IsDisconnected", err)
	}
}

// next is the next event, which must be of unit.
func next(t *testing.T, w *Watcher, unit string) UnitState {
	t.Helper()
	select {
	case s := <-w.Events():
		if s.Name != unit {
			t.Fatalf("event of %q, want %q", s.Name, unit)
		}
		return s
	case <-time.After(10 * time.Second):
		t.Fatalf("no event of %s", unit)
	}
	panic("unreachable")
}

// until reads events until one of unit is in state active with pid.
func until(t *testing.T, w *Watcher, unit, active string, pid int) {
	t.Helper()
	limit := time.After(15 * time.Second)
	for {
		select {
		case s := <-w.Events():
			if s.Name == unit && s.ActiveState == active && s.MainPID == pid {
				return
			}
		case <-limit:
			t.Fatalf("%s did not become %s with PID %d", unit, active, pid)
		}
	}
}

// allSignalled are all properties that a Watcher can report of a service.
var allSignalled = append(signalledProperties(unitIf), signalledProperties(busName+".Service")...)

func TestWatcher(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	m.SetQuietly("app@1.service", "active", 11)
	before := runtime.NumGoroutine()
	w := NewWatcher(WatcherOptions{Endpoint: endpoint(b), Properties: allSignalled})
	w.Watch("app@1.service")
	if s := next(t, w, "app@1.service"); s.ActiveState != "active" || s.MainPID != 11 || s.LoadState != "loaded" {
		t.Errorf("first event %+v", s)
	}
	w.Watch("app@2.service")
	if s := next(t, w, "app@2.service"); s.ActiveState != "inactive" || s.LoadState != "not-found" {
		t.Errorf("unit without a file: %+v", s)
	}
	m.Set("other.service", "active", 99)
	m.Set("app@2.service", "active", 12)
	if s := next(t, w, "app@2.service"); s.ActiveState != "active" || s.MainPID != 12 {
		t.Errorf("after its start: %+v", s)
	}
	w.Forget("app@2.service")
	w.Watch("app@1.service") // reported again; and now Forget has been handled
	next(t, w, "app@1.service")
	m.Set("app@2.service", "failed", 0)
	m.Set("app@1.service", "failed", 0)
	if s := next(t, w, "app@1.service"); s.ActiveState != "failed" || s.MainPID != 0 {
		t.Errorf("after its end: %+v", s)
	}
	// The first changes of a unit that is loaded and started at once are not announced: the end of
	// the job is.
	m.SetQuietly("app@1.service", "active", 13)
	m.Emit(managerPath, managerIf+".JobRemoved", uint32(1), dbus.ObjectPath("/job"), "app@1.service", "done")
	if s := next(t, w, "app@1.service"); s.MainPID != 13 {
		t.Errorf("after JobRemoved: %+v", s)
	}
	// When the changes were announced, the end of the job costs one question, not a dozen.
	m.Set("app@1.service", "active", 14)
	if s := next(t, w, "app@1.service"); s.MainPID != 14 {
		t.Errorf("after a start that was announced: %+v", s)
	}
	asked := m.Asked()
	m.Emit(managerPath, managerIf+".JobRemoved", uint32(2), dbus.ObjectPath("/job"), "app@1.service", "done")
	for limit := time.Now().Add(10 * time.Second); m.Asked() == asked && time.Now().Before(limit); {
		time.Sleep(time.Millisecond)
	}
	w.Watch("app@1.service")
	next(t, w, "app@1.service")
	again := 1 + len(allSignalled)
	if got := m.Asked() - asked; got != 1+again {
		t.Errorf("%d questions for the end of a job and for Watch, want %d", got, 1+again)
	}
	m.SetQuietly("app@1.service", "active", 15)
	m.Emit(managerPath, managerIf+".Reloading", false)
	if s := next(t, w, "app@1.service"); s.MainPID != 15 {
		t.Errorf("after a reload: %+v", s)
	}
	w.Close()
	if _, open := <-w.Events(); open {
		t.Error("Events is open after Close")
	}
	w.Watch("app@3.service") // after Close: no effect, no hang
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond) // godbus's own goroutines end by themselves and nobody can wait for them
	}
	t.Errorf("%d goroutines, before %d", runtime.NumGoroutine(), before)
}

// Who wants nothing of services asks for nothing of them, and is woken by no change of them alone.
func TestWatcherAsksForWhatIsWanted(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	m.SetQuietly("app@1.service", "active", 11)
	w := NewWatcher(WatcherOptions{Endpoint: endpoint(b), Properties: []string{"InvocationID"}})
	defer w.Close()
	w.Watch("app@1.service")
	if s := next(t, w, "app@1.service"); s.ActiveState != "active" || s.MainPID != 0 {
		t.Errorf("first event %+v, want the unit's state and nothing of a service", s)
	}
	if asked := m.Asked(); asked != 2 {
		t.Errorf("%d questions, want 2: the time of the last change, and the invocation", asked)
	}
	m.Set("app@1.service", "failed", 0)
	if s := next(t, w, "app@1.service"); s.ActiveState != "failed" {
		t.Errorf("after its end: %+v", s)
	}
	asked := m.Asked()
	c := dialTest(t, b)
	if s, err := c.Active(testContext(t), "app@1.service"); err != nil || s.ActiveState != "failed" || s.SubState != "running" || m.Asked()-asked != 3 {
		t.Errorf("state is %+v, %v, after %d questions", s, err, m.Asked()-asked)
	}
}

// An alias is not in the listing, and a name that cannot be loaded spoils it for all.
func TestWatcherReadsWhatIsNotListed(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	m.Unlisted = true
	m.SetQuietly("app@1.service", "active", 11)
	w := NewWatcher(WatcherOptions{Endpoint: endpoint(b), Properties: []string{"InvocationID", "MainPID"}})
	defer w.Close()
	w.Watch("app@1.service")
	if s := next(t, w, "app@1.service"); s.LoadState != "loaded" || s.ActiveState != "active" || s.SubState != "running" || s.MainPID != 11 {
		t.Errorf("it is %+v", s)
	}
	w.Watch("app@2.service")
	if s := next(t, w, "app@2.service"); s.LoadState != "not-found" || s.ActiveState != "inactive" || s.SubState != "dead" {
		t.Errorf("a unit without a file: %+v", s)
	}
}

// A name that no unit can have stops nothing else.
func TestWatcherOfAnImpossibleName(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	m.SetQuietly("app@1.service", "active", 11)
	w := NewWatcher(WatcherOptions{Endpoint: endpoint(b)})
	defer w.Close()
	w.Watch("")
	if s := next(t, w, ""); s.LoadState != "error" || s.ActiveState != "inactive" {
		t.Errorf("it is %+v", s)
	}
	w.Watch("app@1.service")
	if s := next(t, w, "app@1.service"); s.ActiveState != "active" {
		t.Errorf("another unit: %+v", s)
	}
}

func TestWatcherOutlivesBusAndManager(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	m.SetQuietly("app@1.service", "active", 11)
	lost := make(chan error, 16)
	w := NewWatcher(WatcherOptions{Endpoint: endpoint(b), Properties: allSignalled, Lost: func(err error) { lost <- err }})
	defer w.Close()
	w.Watch("app@1.service")
	until(t, w, "app@1.service", "active", 11)

	// The manager executes itself: it leaves the bus and comes back.
	m.Disconnect()
	m.SetQuietly("app@1.service", "active", 12)
	m.Connect(b)
	until(t, w, "app@1.service", "active", 12)
	m.Set("app@1.service", "active", 13)
	until(t, w, "app@1.service", "active", 13)

	// The bus goes, and comes back before the manager does.
	b.Kill()
	if err := <-lost; err == nil {
		t.Error("Lost(nil) while the bus was down")
	}
	m.SetQuietly("app@1.service", "failed", 0)
	w.Watch("app@2.service") // while there is no connection
	b.Start()
	m.Connect(b)
	until(t, w, "app@1.service", "failed", 0)
	if err := <-lost; err != nil {
		t.Errorf("Lost(%v), want nil", err)
	}
	m.Set("app@2.service", "active", 20)
	until(t, w, "app@2.service", "active", 20)
	m.Lock()
	defer m.Unlock()
	if m.Subscribed < 3 {
		t.Errorf("subscribed %d times, want 3 at least", m.Subscribed)
	}
}

// More units than dbus-daemon allows match rules.
func TestWatcherManyUnits(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	w := NewWatcher(WatcherOptions{Endpoint: endpoint(b), Properties: allSignalled, Lost: func(err error) {
		if err != nil {
			t.Errorf("lost: %v", err)
		}
	}})
	defer w.Close()
	name := func(i int) string { return "app@" + string(rune('a'+i/26)) + string(rune('a'+i%26)) + ".service" }
	for i := range 400 {
		w.Watch(name(i))
	}
	for i := range 400 {
		next(t, w, name(i))
	}
	m.Set(name(399), "active", 1)
	until(t, w, name(399), "active", 1)
	m.Set(name(0), "active", 2)
	until(t, w, name(0), "active", 2)
}

// A reader that is slow sees the latest state, once.
func TestWatcherCoalesces(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	w := NewWatcher(WatcherOptions{Endpoint: endpoint(b), Properties: allSignalled})
	defer w.Close()
	w.Watch("app@1.service")
	next(t, w, "app@1.service")
	for pid := range uint32(500) {
		m.Set("app@1.service", "active", pid)
	}
	until(t, w, "app@1.service", "active", 499)
}
