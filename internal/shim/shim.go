// Package shim is the balancer of one app: it follows the app's instances through PID 1, decides
// who is on the ring, drains and ejects instances, and answers the control socket. How connections
// get to the instances is the data path's business (package path), and what programs say over their
// channels is package channel's.
//
// The shim sees no connection and none of their bytes. What it does costs work only when an
// instance changes state, and one look at the path per tick.
//
// One goroutine, Run, owns all state. Others send it functions to run (see do).
//
// It is not for starting or stopping instances; PID 1 does that, and package lifecycle asks it to.
package shim

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/pace"
	"github.com/unitgen/unitgen/internal/shim/channel"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Properties are what Options.Units must report of units (systemd.WatcherOptions): for the status, and
// to say how instances ended that never got ready.
func Properties() []string {
	return []string{"MainPID", "NRestarts", "Result", "ExecMainCode", "ExecMainStatus"}
}

// Options are the settings of a shim.
type Options struct {
	App app.Name
	control.Settings
	Path      path.Path
	Receiving path.Receiving    // gives programs their connections over their channels; nil where they accept for themselves
	Channels  *net.UnixListener // of app-channel.socket; nil where programs have no channel
	Messages  bool              // channels carry messages only: the programs are not ones for Node.js
	Drained   time.Time         // since when the whole host is drained; zero: it is not
	Store     *path.Store
	Notify    *activation.Notifier
	Manager   systemd.Endpoint // asked on connections of their own: questions are rare
	Units     *systemd.Watcher
	Log       *slog.Logger
}

// weight is the share of instance number.
func weight(weights []int, number int) int {
	if number < 1 || number > len(weights) {
		return balance.MinWeight
	}
	return weights[number-1]
}

// ErrIdle is Run's result when the app was idle for Options.IdleExit. New connections are on their
// way to the parking listener then, so that PID 1 starts the app again on the first one.
var ErrIdle = errors.New("app is idle")

// Shim is the balancer of one app. Make one with New and call Run once.
type Shim struct {
	options  Options
	log      *slog.Logger
	notify   *activation.Notifier
	units    *systemd.Watcher
	path     path.Path
	channels *channel.Channels

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
	note           string      // what a rollout says of itself
	alarms         alarms      // what instances did to what they share

	tick     *time.Timer // the next look at queues, drains and idleness
	requests chan func()
	ended    chan struct{} // closed when Run has ended: nobody takes requests any more
}

// New takes over the instances that the path has adopted, and drops what is left in the Store. The
// caller keeps ownership of all that Options name, and closes it after Run.
func New(o Options) (*Shim, error) {
	pool, err := balance.NewPool(balance.Options{Strategy: o.Strategy, SlowStart: o.SlowStart})
	if err != nil {
		return nil, err
	}
	s := &Shim{
		options: o, log: o.Log, notify: o.Notify, units: o.Units, path: o.Path,
		instances:      make(map[int]*instance),
		pool:           pool,
		drains:         make(map[*drainWait]bool),
		rollouts:       make(map[int]bool),
		parkingWatched: true,
		requests:       make(chan func()),
		ended:          make(chan struct{}),
		host:           host{drained: o.Drained},
		statusPace:     pace.Bucket{Burst: 20, Every: 100 * time.Millisecond},
	}
	s.channels = channel.New(channel.Options{
		App: o.App, Listener: o.Channels, Receiving: o.Receiving, Messages: o.Messages,
		Store: o.Store, Manager: o.Manager, Do: s.do, Log: o.Log,
	}, o.Settings)
	is := s.path.Describe()
	for _, number := range is.Instances {
		s.adopt(number)
	}
	s.channels.Adopt()
	o.Store.DropRest()
	s.log.Info("path is "+string(is.Path), "reason", is.Reason)
	s.units.Watch(o.App.Socket())
	return s, nil
}

// Run balances until ctx ends, which leaves the ring as it is: the kernel steers on and the next
// shim adopts it. It fails when no instance became ready in time, and returns ErrIdle when the app
// may sleep.
func (s *Shim) Run(ctx context.Context) (err error) {
	defer close(s.ended)
	ctx, cancel := context.WithCancel(ctx)
	running := make(chan error, 2)
	for _, run := range []func(context.Context) error{s.path.Run, s.channels.Run} {
		go func() { // ends with ctx, awaited below
			err := run(ctx)
			running <- err
			if err != nil {
				cancel()
			}
		}()
	}
	defer func() { cancel(); err = errors.Join(err, <-running, <-running) }()
	s.started = time.Now()
	watchdog := newTicker(s.notify.WatchdogInterval() / 2)
	defer watchdog.Stop()
	s.tick = time.NewTimer(tickBusy)
	defer s.tick.Stop()
	change := time.NewTimer(time.Hour)
	defer change.Stop()
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
		case <-s.path.Changed():
			s.pathChanged()
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

// pathChanged follows up on what the path has noticed by itself.
func (s *Shim) pathChanged() {
	s.channels.Announce()
	s.countDrains(time.Now())
}

// do runs f on the goroutine that owns the state and returns when it has; false if ctx or Run ended
// first.
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

// settle brings the kernel's ring, the queues and PID 1's view in line with the states of the
// instances.
func (s *Shim) settle(now time.Time) error {
	s.endOver()
	if err := s.setRing(now); err != nil {
		return err
	}
	s.moveQueues()
	s.report(now)
	return nil
}

// setRing gives the ring to the path if it has changed. Before the first states are known an
// adopted ring stays.
func (s *Shim) setRing(now time.Time) error {
	for _, in := range s.instances {
		s.move(in) // its program may have begun to take connections since the last event
	}
	if s.waitingForStates() {
		return nil
	}
	ring, next := s.pool.Ring(now)
	s.ringNext = next
	if s.ring != nil && slices.Equal(ring, s.ring) {
		return nil
	}
	if err := s.path.SetRing(ring); err != nil {
		return err
	}
	s.ring = append(make([]uint16, 0, len(ring)), ring...)
	return nil
}

// waitingForStates is true from the adoption of an earlier shim's ring until PID 1 has told the
// state of each instance, and each that is up has told what it has: a ring made from less would
// take away instances that serve.
func (s *Shim) waitingForStates() bool {
	for _, in := range s.instances {
		if !in.adopted {
			continue
		}
		if !in.serviceKnown || !in.socketKnown || in.state() == balance.Up && s.path.Serves(in.number) == path.Unknown {
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
