package handoff

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/handoff/receiver"
	"github.com/unitgen/unitgen/internal/handoff/wire"
)

// Options are the settings of a Dispatcher.
type Options struct {
	// Listeners are the app's public listeners, non-blocking and borrowed: the caller keeps them
	// open until Run has ended.
	Listeners []int
	// Receivers means that the instances are Receivers.
	Receivers bool
	// Waiting returns how many connections wait at a listener. If exact is false, n only says
	// whether any wait.
	Waiting func(listener int) (n int, exact bool, err error)
	// Changed is called after a change that Stat shows, except a change of counts only. Changed
	// must not block or call the Dispatcher.
	Changed func()
	Log     *slog.Logger
}

// Dispatcher hands the connections of an app to its instances. All methods are safe for concurrent
// use.
type Dispatcher struct {
	options  Options
	epoll    int
	wake     int // eventfd: Run ends
	channels int // of Receivers, an epoll set in that of the loop; negative if there are none

	mu        sync.Mutex
	picker    balance.Picker
	most      int  // open connections of an instance; zero means any number
	sees      bool // the strategy looks at connections, so they are accepted here
	listeners []*listener
	backends  map[int]*backend
	given     map[int]uint64 // connections per instance since the start
	stranded  []connection   // accepted here, and nobody has them
	attached  uint32         // how many channels there were: tells the events of one from those of the next
	changed   bool           // Changed is due
	paused    bool           // the loop does not poll channels
	spoken    []unix.EpollEvent
	said      []receiver.Said // of the Receiver that is being heard
}

// listener is a public listener.
type listener struct {
	fd     int
	behind bool // connections may wait there that no order or event stands for
}

// connection is an accepted connection. Whoever holds the value owns its descriptor.
type connection struct {
	fd, listener int
	peer         wire.Peer
}

// Event numbers that belong to no instance; listener i has firstListener-i.
const (
	wakeEvent     = -1
	channelsEvent = -2
	firstListener = -3
)

// New watches the listeners. The caller calls Run, which releases what New has opened.
func New(o Options) (_ *Dispatcher, err error) {
	if len(o.Listeners) == 0 || len(o.Listeners) > wire.MaxListeners {
		return nil, fmt.Errorf("hand off connections: %d listeners, want 1 to %d", len(o.Listeners), wire.MaxListeners)
	}
	d := &Dispatcher{options: o, epoll: -1, wake: -1, channels: -1, backends: make(map[int]*backend), given: make(map[int]uint64)}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if d.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err = watch(d.epoll, unix.EPOLL_CTL_ADD, d.wake, unix.EPOLLIN, wakeEvent, 0); err != nil {
		return nil, err
	}
	if o.Receivers {
		if err = d.openChannels(); err != nil {
			return nil, err
		}
	}
	for i, fd := range o.Listeners {
		d.listeners = append(d.listeners, &listener{fd: fd})
		// Edge-triggered: one event for each arrival, and none for connections that nobody can take
		// yet.
		if err = watch(d.epoll, unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLET, firstListener-i, 0); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// watch changes what an epoll set watches a descriptor for.
func watch(set, how, fd int, events uint32, number int, attached uint32) error {
	event := unix.EpollEvent{Events: events, Fd: int32(number), Pad: int32(attached)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(set, how, fd, &event))
}

// maxEvents is the number of events that one epoll_wait(2) returns: those of all instances of a
// large app.
const maxEvents = 128

// scheduleEvery is how often Run yields. If a goroutine was not scheduled for 10 ms, the runtime
// takes its processor in the next system call and then looks for such goroutines every 20 us. That
// took a third of the balancer's CPU (retake and sysmon in runtime/proc.go).
const scheduleEvery = 8 * time.Millisecond

// Run hands out connections until ctx ends. Then it closes the descriptors of the channels. The
// instances keep their connections.
func (d *Dispatcher) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, d.interrupt)
	defer stop()
	defer d.close()
	events := make([]unix.EpollEvent, maxEvents)
	scheduled := time.Now()
	timeout := -1
	for {
		n, err := unix.EpollWait(d.epoll, events, timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("hand off connections: %w", os.NewSyscallError("epoll_wait", err))
		}
		d.locked(func() {
			for _, e := range events[:max(n, 0)] {
				d.handleLocked(int(e.Fd), uint32(e.Pad))
			}
			timeout = d.attendLocked(n)
		})
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(scheduled) > scheduleEvery {
			runtime.Gosched()
			scheduled = time.Now()
		}
	}
}

// interrupt ends Run.
func (d *Dispatcher) interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wake < 0 {
		return // it has ended by itself
	}
	if _, err := unix.Write(d.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		d.options.Log.Error("end handing off, ignoring", "error", os.NewSyscallError("write", err))
	}
}

func (d *Dispatcher) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.backends {
		d.closeChannel(b)
		for _, o := range b.orders {
			closeAll(o.given)
		}
	}
	clear(d.backends)
	closeAll(d.stranded)
	d.stranded = nil
	for _, fd := range []int{d.wake, d.channels, d.epoll} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	d.wake, d.channels, d.epoll = -1, -1, -1
}

// locked runs f with the state locked, and reports changes to the caller after unlocking.
func (d *Dispatcher) locked(f func()) {
	d.mu.Lock()
	f()
	d.settleLocked()
	changed := d.changed
	d.changed = false
	d.mu.Unlock()
	if changed && d.options.Changed != nil {
		d.options.Changed()
	}
}

func (d *Dispatcher) handleLocked(number int, attached uint32) {
	switch {
	case number == wakeEvent:
	case number == channelsEvent:
		d.hearAllLocked()
	case number < 0:
		d.hearAllLocked()
		d.dispatchLocked(d.listeners[firstListener-number])
	default:
		// A message on one channel may end another channel, whose event is in the same list.
		if b := d.backends[number]; b != nil && b.attached == attached {
			d.hearLocked(b)
		}
	}
}

// SetRing sets the instances that take connections, as made by balance.Pool; with an empty ring
// none does. Orders that an instance has not carried out when it leaves the ring go to the
// instances on the ring.
func (d *Dispatcher) SetRing(s balance.Strategy, ring []uint16) {
	d.locked(func() {
		d.picker.SetRing(s, ring)
		d.sees = s == balance.SourceHash
		d.dispatchAllLocked()
	})
}

// Limit sets the maximum number of open connections of an instance; zero means any number. Further
// connections wait.
func (d *Dispatcher) Limit(most int) {
	d.locked(func() {
		d.most = most
		d.dispatchAllLocked()
	})
}

// Waiting returns how many connections wait at a listener, in the order of Options.Listeners.
func (d *Dispatcher) Waiting(i int) (int, error) {
	n, _, err := d.options.Waiting(d.options.Listeners[i])
	return n, err
}

// Stat is the state of an instance.
type Stat struct {
	Ready   bool          // its program receives connections
	Open    int           // connections that the program has open
	Busy    int           // of Open, when Asked was answered: in the middle of something
	Pending int           // ordered or given, and not answered yet
	Given   uint64        // ordered or given so far
	Waits   time.Duration // how long the oldest of Pending has waited for an answer
	Asked   int           // how many Asks it has answered
}

// Stat returns the state of an instance. Without a channel only Given is set.
func (d *Dispatcher) Stat(id int) Stat {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.backends[id]
	if b == nil {
		return Stat{Given: d.given[id]}
	}
	d.lookAtLocked(b)
	st := Stat{
		Ready: b.ready && !b.report.Closing, Open: b.report.Open(), Busy: b.busy, Pending: b.pending, Given: d.given[id], Asked: b.asked,
	}
	if len(b.orders) > 0 {
		st.Waits = time.Since(b.orders[0].at)
	}
	return st
}

// Ask makes an instance report its state again, which Stat.Asked counts. The instance answers when
// its program next asks for a connection.
func (d *Dispatcher) Ask(id int) {
	d.locked(func() {
		switch b := d.backends[id]; {
		case b == nil:
		case b.receiver != nil:
			b.receiver.Ask(b.token)
		default:
			d.sayLocked(b, wire.Message{Kind: wire.Ask, Token: b.token})
		}
	})
}

func closeAll(all []connection) {
	for _, c := range all {
		unix.Close(c.fd)
	}
}
