package systemd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
)

// Limits of a Watcher.
const (
	// A lost connection is tried again after 20 ms, doubling to 5 s: a reexec is over in tens of
	// milliseconds, a bus that stays away costs one connect in five seconds.
	firstRetry = 20 * time.Millisecond
	lastRetry  = 5 * time.Second

	// answerTimeout limits reading one unit. PID 1 does not answer while it reloads: up to 30 s
	// with 16,000 units.
	answerTimeout = time.Minute

	// A unit has two match rules, so that other units do not wake us. dbus-daemon allows 512 rules
	// on a connection of its system bus (max_match_rules_per_connection): beyond 200 units one rule
	// serves all.
	maxOwnRules = 200

	// requestBuffer is how many Watch and Forget calls may be ahead of the Watcher before they wait
	// for it: all units of the largest app at once.
	requestBuffer = 4096
)

// Watcher follows units by the manager's signals, without polling. It outlives daemon-reload,
// daemon-reexec and a restart of the bus: it connects again, reads all units again and reports what
// changed meanwhile.
//
// One goroutine owns all state. Any goroutine may call Watch, Forget and Close, including the one
// that reads Events.
type Watcher struct {
	requests chan watchRequest
	events   chan UnitState
	stop     context.CancelFunc
	done     chan struct{}
}

// WatcherOptions configures a Watcher.
type WatcherOptions struct {
	Endpoint Endpoint

	// Properties names what is reported of each unit beside its name, LoadState, ActiveState, SubState
	// and StateChange: InvocationID, ActiveEnterTimestamp, MainPID, Result, NRestarts, StatusText,
	// ExecMainCode or ExecMainStatus. Each costs a question for every unit that has ever run; without
	// those of services and sockets their signals, half of all, are left out.
	Properties []string

	// Lost, if set, is called when the manager cannot be reached, once an outage and with its
	// reason, and with nil when it answers again. It runs on the Watcher's goroutine: it must not
	// block.
	Lost func(error)
}

type watchRequest struct {
	unit   string
	forget bool
}

// NewWatcher starts a Watcher, which connects in the background: a manager that cannot be reached
// is an outage like any later one, not an error. The caller calls Close.
func NewWatcher(o WatcherOptions) *Watcher {
	ctx, stop := context.WithCancel(context.Background())
	w := &Watcher{
		requests: make(chan watchRequest, requestBuffer),
		events:   make(chan UnitState),
		stop:     stop,
		done:     make(chan struct{}),
	}
	l := &watchLoop{w: w, options: o, units: make(map[string]*watchedUnit), byPath: make(map[dbus.ObjectPath]*watchedUnit)}
	go l.run(ctx)
	return w
}

// Events delivers the state of a unit when it is first read and whenever it has changed. A reader
// that is slow gets the latest state of each unit, not every state in between; a restart that it
// missed shows in InvocationID, if that is wanted. The channel is closed by Close.
func (w *Watcher) Events() <-chan UnitState { return w.events }

// Watch adds a unit. Its first event is its present state; a unit that has no file is inactive, and
// is followed until it has one. A unit that is watched already is reported again.
func (w *Watcher) Watch(unit string) { w.request(watchRequest{unit: unit}) }

// Forget removes a unit. An event of it that was under way may still arrive.
func (w *Watcher) Forget(unit string) { w.request(watchRequest{unit: unit, forget: true}) }

func (w *Watcher) request(r watchRequest) {
	select {
	case w.requests <- r:
	case <-w.done:
	}
}

// Close ends the Watcher and returns when it has ended.
func (w *Watcher) Close() {
	w.stop()
	<-w.done
}

// watchLoop is the state of a Watcher. Its goroutine alone touches it.
type watchLoop struct {
	w       *Watcher
	options WatcherOptions
	units   map[string]*watchedUnit
	byPath  map[dbus.ObjectPath]*watchedUnit
	outbox  []*watchedUnit // have something to report, oldest first

	link     *link // nil while there is none
	signals  chan *dbus.Signal
	ownRules int  // units that have match rules of their own on the connection
	allUnits bool // it has the rules that serve all units
	lost     bool // Lost was told so
}

// watchedUnit is one unit of the set.
type watchedUnit struct {
	state   UnitState
	told    UnitState // what was reported last
	isTold  bool
	queued  bool          // in outbox
	read    dbus.Sequence // state is that of this message or a later one
	pathOf  dbus.ObjectPath
	ownRule bool // has match rules of its own on the connection
}

// run is the Watcher's goroutine. It ends when ctx does.
func (l *watchLoop) run(ctx context.Context) {
	defer close(l.w.done)
	defer close(l.w.events)
	retry := firstRetry
	for ctx.Err() == nil {
		err := l.connect(ctx)
		if err == nil {
			l.report(nil)
			retry = firstRetry
			err = l.follow(ctx, nil)
		}
		l.disconnect()
		if ctx.Err() != nil {
			return
		}
		l.report(err)
		timer := time.NewTimer(retry)
		l.follow(ctx, timer.C) // ends by the timer: there is no connection that could fail
		timer.Stop()
		retry = min(2*retry, lastRetry)
	}
}

// report tells Lost of an outage and of its end, each once.
func (l *watchLoop) report(err error) {
	if l.options.Lost != nil && (err != nil) != l.lost {
		l.options.Lost(err)
	}
	l.lost = err != nil
}

// connect makes a connection, asks for the signals and reads all units.
func (l *watchLoop) connect(ctx context.Context) error {
	conn, err := l.options.Endpoint.dialToStay(ctx)
	if err != nil {
		return err
	}
	l.link, l.signals = conn, conn.signals()
	reloading := []dbus.MatchOption{dbus.WithMatchSender(busName), dbus.WithMatchInterface(managerIf), dbus.WithMatchMember("Reloading")}
	if err := l.match(ctx, reloading); err != nil {
		return err
	}
	return l.resync(ctx)
}

// disconnect gives the connection up. Bodies of signals that were not read go with it: the next
// connect reads all.
func (l *watchLoop) disconnect() {
	if l.link != nil {
		l.link.bus.Close()
	}
	l.link, l.signals, l.ownRules, l.allUnits = nil, nil, 0, false
	for _, u := range l.units {
		u.ownRule, u.read = false, 0
	}
}

// resync subscribes and reads all units.
func (l *watchLoop) resync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if err := l.link.subscribe(ctx); err != nil {
		return err
	}
	return l.readUnits(ctx, slices.Collect(maps.Values(l.units)))
}

// follow serves signals, requests and readers until the connection fails or, if it is given, until
// fires.
func (l *watchLoop) follow(ctx context.Context, until <-chan time.Time) error {
	for {
		var out chan<- UnitState
		var next UnitState
		if len(l.outbox) > 0 {
			out, next = l.w.events, l.outbox[0].state
		}
		select {
		case out <- next:
			l.sent()
		case r := <-l.w.requests:
			if err := l.handleRequests(ctx, r); err != nil {
				return err
			}
		case sig, ok := <-l.signals:
			if !ok {
				return errConnectionLost
			}
			if err := l.handleSignal(ctx, sig); err != nil {
				return err
			}
		case <-until:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sent notes that the first of outbox was delivered.
func (l *watchLoop) sent() {
	u := l.outbox[0]
	l.outbox[0] = nil
	l.outbox = l.outbox[1:]
	u.queued, u.isTold, u.told = false, true, u.state
}

// changed queues the unit for its reader if there is something to say.
func (l *watchLoop) changed(u *watchedUnit) {
	if u.queued || u.isTold && u.told == u.state {
		return
	}
	u.queued = true
	l.outbox = append(l.outbox, u)
}

// handleRequests serves r and the requests that wait behind it, so that their units are read together.
func (l *watchLoop) handleRequests(ctx context.Context, r watchRequest) error {
	var added []*watchedUnit
	for more := true; more; {
		u := l.units[r.unit]
		switch {
		case !r.forget:
			added = append(added, l.add(r.unit))
		case u != nil:
			added = slices.DeleteFunc(added, func(a *watchedUnit) bool { return a == u })
			if err := l.forget(ctx, u); err != nil {
				return err
			}
		}
		select {
		case r = <-l.w.requests:
		default:
			more = false
		}
	}
	if l.link == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return l.readUnits(ctx, added)
}

// add adds a unit, whose state will be reported again if it was.
func (l *watchLoop) add(unit string) *watchedUnit {
	u := l.units[unit]
	if u == nil {
		u = &watchedUnit{state: UnitState{Name: unit}, pathOf: UnitPath(unit)}
		l.units[unit], l.byPath[u.pathOf] = u, u
	}
	u.isTold = false
	return u
}

func (l *watchLoop) forget(ctx context.Context, u *watchedUnit) error {
	delete(l.units, u.state.Name)
	delete(l.byPath, u.pathOf)
	for i, q := range l.outbox {
		if q == u {
			l.outbox = append(l.outbox[:i], l.outbox[i+1:]...)
			break
		}
	}
	if l.link == nil || !u.ownRule {
		return nil
	}
	l.ownRules--
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	for _, rule := range l.unitRules(u) {
		if err := l.link.removeMatch(ctx, rule...); err != nil {
			return fmt.Errorf("stop following %s: %w", u.state.Name, err)
		}
	}
	return nil
}
