// Package shim is the balancer of one app: it follows the app's instances through PID 1, keeps the
// ring by which the kernel picks the next instance, moves queues that nobody serves, and answers the control socket.
//
// On the steer path it accepts no public connection and sees none of their bytes: its cost per connection, request and byte
// is zero. What it does costs work only when an instance changes state, and one look at a few words of shared memory per
// tick. On the handoff path a goroutine of its own hands out the connections (package handoff).
//
// One goroutine, Run, owns all state. Others send it functions to run (see do).
//
// It is not for starting or stopping instances; PID 1 does that, and package lifecycle asks it to.
package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/pace"
	"github.com/unitgen/unitgen/internal/steer"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Options are the settings of a shim.
type Options struct {
	App  app.Name
	Path app.Path // app.PathHandoff, else the steer path
	control.Settings
	Messages bool      // the channel of an instance carries messages only: its program is not one for Node.js
	Drained  time.Time // since when the whole host is drained; zero: it is not
}

// weight is the share of instance number.
func weight(weights []int, number int) int {
	if number < 1 || number > len(weights) {
		return balance.MinWeight
	}
	return weights[number-1]
}

// ErrIdle is Run's result when the app was idle for Options.IdleExit. New connections are on their way to the parking
// listener then, so that PID 1 starts the app anew on the first one.
var ErrIdle = errors.New("app is idle")

// Shim is the balancer of one app. Make one with New and call Run once.
type Shim struct {
	options Options
	log     *slog.Logger
	notify  *activation.Notifier
	manager systemd.Endpoint
	units   *systemd.Watcher
	counter *counter

	kernel    steer.SelfTestResult // what steering can do here
	strategy  app.Strategy         // in force; Options.Strategy is what was asked for
	addresses []*address
	instances map[int]*instance
	pool      *balance.Pool
	ring      []uint16
	ringNext  time.Time // when slow start changes the ring

	parkingWatched bool // PID 1 polls the parking listener: its queue must not be moved now
	closed         bool // the app stops: new connections are refused
	ready          bool // READY=1 was sent
	started        time.Time
	drains         map[*drainWait]bool
	rollouts       map[int]bool // by process: those that have not said that they end
	cutOff         bool         // one of them was killed
	activity       activity
	host           host
	status         string
	statusPace     pace.Bucket // instances can cause changes

	prober        *prober
	note          string // what a rollout says of itself
	alarms        alarms // what instances did to what they share
	nodes         nodes
	handoff       *handoff.Dispatcher // nil on the steer path
	handedChanged chan struct{}       // an instance has said something
	channels      []*nodeChannel      // adopted; Run speaks on them
	tick          *time.Timer         // the next look at queues, drains and idleness
	requests      chan func()
	ended         chan struct{} // closed when Run has ended: nobody takes requests any more
}

// New takes over what PID 1 passed. It attaches to the listeners of inherited at once, so new connections are steered
// when it returns, by the ring of an earlier shim if there was one. The caller keeps ownership of notify and units; the Shim owns all of inherited's descriptors, which are closed when the process ends.
func New(o Options, inherited Inherited, notify *activation.Notifier, manager systemd.Endpoint, units *systemd.Watcher, log *slog.Logger) (*Shim, error) {
	pool, err := balance.NewPool(balance.Options{Strategy: ringStrategy(o.Strategy), SlowStart: o.SlowStart})
	if err != nil {
		return nil, err
	}
	s := &Shim{
		options: o, log: log, notify: notify, manager: manager, units: units,
		instances:      make(map[int]*instance),
		pool:           pool,
		drains:         make(map[*drainWait]bool),
		rollouts:       make(map[int]bool),
		parkingWatched: true,
		requests:       make(chan func()),
		ended:          make(chan struct{}),
		prober:         newProber(),
		nodes:          newNodes(inherited.Channels, log),
		handedChanged:  make(chan struct{}, 1),
		strategy:       o.Strategy,
		host:           host{drained: o.Drained},
		statusPace:     pace.Bucket{Burst: 20, Every: 100 * time.Millisecond},
	}
	if !s.handsOff() {
		s.kernel = steer.SelfTest()
		s.strategy = s.firstStrategy()
	}
	if s.counter, err = newCounter(inherited.Diag); err != nil {
		return nil, err
	}
	if err := s.attach(inherited); err != nil {
		return nil, err
	}
	s.log.Info("path is "+string(s.path()), "reason", s.pathReason())
	s.units.Watch(o.App.Socket())
	return s, nil
}

// Run balances until ctx ends, which leaves the ring as it is: the kernel steers on and the next shim adopts it. It fails
// when no instance became ready in time, and returns ErrIdle when the app may sleep.
func (s *Shim) Run(ctx context.Context) (err error) {
	defer close(s.ended)
	defer func() { err = errors.Join(err, s.counter.close()) }()
	ctx, cancel := context.WithCancel(ctx)
	conversed := make(chan error, 1)
	go func() { // ends with ctx, awaited below
		err := s.serveInstances(ctx)
		conversed <- err
		if err != nil {
			cancel()
		}
	}()
	defer func() { cancel(); err = errors.Join(err, <-conversed) }()
	s.started = time.Now()
	watchdog := newTicker(s.notify.WatchdogInterval() / 2)
	defer watchdog.Stop()
	s.tick = time.NewTimer(tickBusy)
	defer s.tick.Stop()
	change := time.NewTimer(time.Hour)
	defer change.Stop()
	var drainCount <-chan time.Time // nil: no connection has ended since the last
	for {
		if err := s.settle(time.Now()); err != nil {
			return err
		}
		if s.cutOff && ctx.Err() == nil { // a shim that is told to end leaves its clients, too
			return errCutOff
		}
		change.Stop()
		if !s.ringNext.IsZero() {
			change.Reset(time.Until(s.ringNext))
		}
		select {
		case <-ctx.Done():
			s.told(s.notify.Stopping())
			return nil
		case event := <-s.units.Events():
			s.unitChanged(event)
		case request := <-s.requests:
			request()
		case <-s.counter.ended():
			if drainCount == nil {
				drainCount = time.After(time.Until(s.counter.counted.Add(countPause)))
			}
		case <-drainCount:
			drainCount = nil
			s.countDrains()
		case <-s.handedChanged:
			s.handedNews()
		case <-change.C:
		case now := <-s.tick.C:
			if err := s.look(now); err != nil {
				return err
			}
			s.tick.Reset(s.nextLook(now))
		case <-watchdog.C:
			s.told(s.notify.Watchdog())
		}
	}
}

// serveInstances speaks with the instances, in the way of the path, until ctx ends.
func (s *Shim) serveInstances(ctx context.Context) error {
	if !s.handsOff() {
		return s.serveNodes(ctx, s.channels)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	handed := make(chan error, 1)
	go func() { // ends with ctx, awaited below
		defer cancel()
		handed <- s.handoff.Run(ctx)
	}()
	var err error
	if s.nodes.listener != nil || len(s.channels) > 0 {
		err = s.serveNodes(ctx, s.channels)
		cancel()
	}
	return errors.Join(err, <-handed)
}

// do runs f on the goroutine that owns the state and returns when it has; false if ctx or Run ended first.
func (s *Shim) do(ctx context.Context, f func()) bool {
	done := make(chan struct{})
	select {
	case s.requests <- func() { f(); close(done) }:
		<-done
		return true
	case <-ctx.Done():
		return false
	case <-s.ended:
		return false
	}
}

// settle brings the kernel's ring, the queues and PID 1's view in line with the states of the instances.
func (s *Shim) settle(now time.Time) error {
	if err := s.setRing(now); err != nil {
		return err
	}
	s.moveQueues()
	s.report(now)
	return nil
}

// setRing gives the ring to the kernel if it has changed. Before the first states are known an adopted ring stays.
func (s *Shim) setRing(now time.Time) error {
	if s.waitingForStates() {
		return nil
	}
	if s.handsOff() { // an instance may have said since the last event that it serves, the word that was waited for
		for _, in := range s.instances {
			s.move(in)
		}
	}
	ring, next := s.pool.Ring(now)
	s.ringNext = next
	if s.ring != nil && equalRing(ring, s.ring) {
		return nil
	}
	for _, a := range s.addresses {
		if err := a.group.SetRing(ring); err != nil {
			return fmt.Errorf("set ring of %s: %w", a, err)
		}
	}
	s.ring = append(make([]uint16, 0, len(ring)), ring...)
	return nil
}

// waitingForStates is true from the adoption of an earlier shim's ring until PID 1 has told the state of each instance:
// a ring made from less would take away instances that serve.
func (s *Shim) waitingForStates() bool {
	for _, in := range s.instances {
		if in.adopted && (!(in.serviceKnown && in.socketKnown) || s.waitingForWord(in)) {
			return true
		}
	}
	return false
}

// told logs that a message did not reach PID 1, which costs a line of status and no connection.
func (s *Shim) told(err error) {
	if err != nil {
		s.log.Warn("notify systemd, ignoring", "error", err)
	}
}

// newTicker is time.NewTicker that never ticks for a zero interval.
func newTicker(d time.Duration) *time.Ticker {
	if d > 0 {
		return time.NewTicker(d)
	}
	t := time.NewTicker(time.Hour)
	t.Stop()
	return t
}

func equalRing(a, b []uint16) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// ringStrategy is how the ring is made; least-connections needs one too, to break ties evenly.
func ringStrategy(s app.Strategy) balance.Strategy {
	if s == app.First {
		return balance.First
	}
	return balance.RoundRobin
}
