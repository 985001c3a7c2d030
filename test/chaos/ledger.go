package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// ledger has what clients saw, and what the harness did that may explain it. It is safe for
// concurrent use.
type ledger struct {
	mu     sync.Mutex
	counts map[string]*counts // by app
	failed []failure
	killed []kill
	shut   map[string][]window // by app, when it was stopped
}

// counts are those of one app's requests. Each request ends in one of them, except for again.
type counts struct {
	ok      int
	killed  int // failed, and a killed instance had accepted them
	refused int // while the app was stopped; tried again
	own     int // failed at an instance that attacks itself
	lost    int // failed otherwise
	again   int // sent once more, as the server closed a kept connection before the first byte of the answer
	slowest time.Duration
}

func (c counts) String() string {
	return fmt.Sprintf("%d answered, %d at killed instances, %d refused while stopped, %d at hostile instances, %d sent again, slowest %s, %d lost",
		c.ok, c.killed, c.refused, c.own, c.again, c.slowest.Round(time.Millisecond), c.lost)
}

// failure is one request that got no answer.
type failure struct {
	app, kind    string
	port         int // the client's, 0 if it was not connected
	began, ended time.Time
	err          error
}

func (f failure) String() string {
	return fmt.Sprintf("%s: %s request from port %d, begun %s, failed after %s: %v",
		f.app, f.kind, f.port, f.began.Format("15:04:05.000"), f.ended.Sub(f.began).Round(time.Millisecond), f.err)
}

// kill is the end of one instance, and the clients whose connections it had accepted when it was
// stopped to be killed.
type kill struct {
	app   string
	at    time.Time
	ports map[int]bool
}

// window is when an app was stopped; to is zero until it is started.
type window struct {
	from, started, to time.Time
	cuts              bool // the stop may have been cancelled half way: connections that wait may be reset
}

func newLedger() *ledger { return &ledger{counts: map[string]*counts{}, shut: map[string][]window{}} }

func (l *ledger) ofLocked(app string) *counts {
	if l.counts[app] == nil {
		l.counts[app] = new(counts)
	}
	return l.counts[app]
}

// count changes the counts of app.
func (l *ledger) count(app string, change func(*counts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l.ofLocked(app))
}

// fail notes a request that failed: it is lost unless an instance was killed that had accepted its
// connection.
func (l *ledger) fail(f failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.ContainsFunc(l.killed, func(k kill) bool {
		return k.app == f.app && k.ports[f.port] && f.began.Before(k.at) && f.ended.After(k.at)
	}) {
		l.ofLocked(f.app).killed++
		return
	}
	l.ofLocked(f.app).lost++
	l.failed = append(l.failed, f)
}

// kill notes the end of an instance. It is called before the signal is sent, or clients would be
// faster.
func (l *ledger) kill(k kill) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.killed = append(l.killed, k)
}

// close says that app is being stopped, until opened or open is called. starts is called when its
// start is about to be requested.
func (l *ledger) close(app string, cuts bool) (starts, opened func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := len(l.shut[app])
	l.shut[app] = append(l.shut[app], window{from: time.Now(), cuts: cuts})
	change := func(f func(*window)) func() {
		return func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			f(&l.shut[app][i])
		}
	}
	return change(func(w *window) { w.started = time.Now() }), change((*window).end)
}

// open says that app is started, whichever commands have stopped it.
func (l *ledger) open(app string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.shut[app] {
		l.shut[app][i].end()
	}
}

func (w *window) end() {
	if w.to.IsZero() {
		w.to = time.Now()
	}
}

// mayRefuse says whether app was stopped at any time since began.
func (l *ledger) mayRefuse(app string, began time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.shut[app], func(w window) bool { return w.to.IsZero() || w.to.After(began) })
}

// mayCut says whether a stop of app that may reset connections fell into a request that began then.
func (l *ledger) mayCut(app string, began time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.shut[app], func(w window) bool {
		return w.cuts && (w.to.IsZero() || w.to.After(began)) ||
			slices.ContainsFunc(l.shut[app], func(stop window) bool { return w.metBy(stop, began) })
	})
}

// metBy says whether stop came while the app that w has stopped was starting, and a request that
// began then was made for that start: nobody could answer it.
func (w window) metBy(stop window, began time.Time) bool {
	starting := !w.started.IsZero() && began.After(w.started) && (w.to.IsZero() || w.to.After(began))
	return starting && stop.from.After(w.started) && (stop.started.IsZero() || began.Before(stop.started))
}

// lost returns the failures that nothing explains.
func (l *ledger) lost() []failure {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.failed)
}

// total sums up all apps.
func (l *ledger) total() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	var sum counts
	for c := range maps.Values(l.counts) {
		sum.ok += c.ok
		sum.killed += c.killed
		sum.refused += c.refused
		sum.own += c.own
		sum.lost += c.lost
		sum.again += c.again
		sum.slowest = max(sum.slowest, c.slowest)
	}
	return sum
}
