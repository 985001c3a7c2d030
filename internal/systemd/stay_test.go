package systemd

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/unitgen/unitgen/internal/systemd/systemdtest"
)

// toStay is a Conn that stays.
func toStay(t *testing.T, b *systemdtest.Bus) *Conn {
	t.Helper()
	c, err := DialToStay(testContext(t), endpoint(b))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A question is asked again, and a job that is under way is awaited further, when the bus is
// restarted.
func TestConnOutlivesTheBus(t *testing.T) {
	b := systemdtest.NewBus(t)
	m := systemdtest.NewManager(t, b)
	c := toStay(t, b)
	release := make(chan struct{})
	started := make(chan struct{}, 2)
	m.Lock()
	m.Act = func(string, string) string { started <- struct{}{}; <-release; return "done" }
	m.Unlock()
	done := make(chan error, 1)
	go func() { done <- c.Run(testContext(t), Job{Verb: Start, Unit: "slow.service"}) }()
	<-started
	b.Kill()
	asked := make(chan error, 1)
	go func() { _, err := c.Version(testContext(t)); asked <- err }()
	b.Start()
	m.Connect(b)
	if err := <-asked; err != nil {
		t.Errorf("a question while the bus restarts: %v", err)
	}
	select {
	case err := <-done:
		t.Fatalf("the wait for a job that is under way has ended: %v", err)
	default:
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("a job while the bus restarts: %v", err)
	}
	m.Lock()
	defer m.Unlock()
	if m.Subscribed != 1 {
		t.Errorf("the connection has subscribed %d times, want once: the manager tells the end of the job to nobody else", m.Subscribed)
	}
}

// What a job came to that ended while there was no connection is found out, and done only once.
func TestJobThatEndsUnheard(t *testing.T) {
	const gone = managerPath + "/job/77"
	for name, test := range map[string]struct {
		verb         Verb
		reloadResult string // of the unit
		ends         string // how a further job ends; empty: there is no such unit
		calls        []string
		failed       bool
	}{
		"start":               {verb: Start, ends: "done", calls: []string{"StartUnit a.service"}},
		"start that failed":   {verb: Start, ends: "failed", calls: []string{"StartUnit a.service"}, failed: true},
		"restart":             {verb: Restart, ends: "done", calls: []string{"StartUnit a.service"}},
		"stop":                {verb: Stop, ends: "done", calls: []string{"StopUnit a.service"}},
		"stop of a lost unit": {verb: Stop},
		"reload":              {verb: Reload, reloadResult: "success", ends: "done"},
		"reload that failed":  {verb: Reload, reloadResult: "exit-code", ends: "done", failed: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := systemdtest.NewBus(t)
			m := systemdtest.NewManager(t, b)
			if test.ends != "" {
				m.Ends("a.service", test.ends)
			}
			m.SetProperties(UnitPath("a.service"), map[string]any{"ReloadResult": test.reloadResult})
			job := Job{Verb: test.verb, Unit: "a.service"}
			r := jobRun{waiting: map[dbus.ObjectPath]Job{gone: job}}
			if err := toStay(t, b).use(testContext(t), func(l *link) error { return r.follow(testContext(t), l) }); err != nil {
				t.Fatal(err)
			}
			if calls := m.Called(); !slices.Equal(calls, test.calls) {
				t.Errorf("asked for %q, want %q", calls, test.calls)
			}
			var failed *JobError
			if err := errors.Join(r.failed...); errors.As(err, &failed) != test.failed || !test.failed && err != nil {
				t.Errorf("error %v, want one that the job failed: %t", err, test.failed)
			}
		})
	}
}

// A manager that does not come back is given up, and a Conn that is closed does not wait for it.
func TestConnGivesUp(t *testing.T) {
	b := systemdtest.NewBus(t)
	systemdtest.NewManager(t, b)
	c := toStay(t, b)
	b.Kill()
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() { _, err := c.Version(ctx); done <- err }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a question that was given up: error %v", err)
	}
	began := time.Now()
	if _, err := c.Version(testContext(t)); !errors.Is(err, errConnectionLost) {
		t.Errorf("without a bus: error %v, want %q", err, errConnectionLost)
	}
	if took := time.Since(began); took < (useTries-1)*usePause {
		t.Errorf("it was given up after %v", took)
	}
	c.Close()
	if _, err := c.Version(testContext(t)); !errors.Is(err, errClosed) {
		t.Errorf("after Close: error %v, want %q", err, errClosed)
	}
}
