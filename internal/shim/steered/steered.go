// Package steered is the data path on which the kernel picks the instance: every instance has a
// listener of its own in a SO_REUSEPORT group of the public address, and package steer attaches the
// program that picks one for each connection request.
//
// The path sees no connection: its cost per connection, request and byte is zero. A tick costs one
// load of shared memory for each instance and address, and while connections come one system call
// for each listener. A count walks the kernel's table of TCP connections once.
//
// It is not for unix sockets, which cannot form a group (package handed), and decides nothing of
// the ring.
package steered

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/steer"
)

// Options are the settings of a Path.
type Options struct {
	App      app.Name
	Strategy balance.Strategy // that was asked for
	Parking  []int            // the public listeners of app.socket, owned by the Path
	Diag     []int            // NETLINK_SOCK_DIAG sockets of the host's network namespace, two or none: see package sockdiag
	Store    *path.Store
	// Cgroup returns the path of the control group of an instance's socket unit. It is asked once,
	// by strategies that count connections.
	Cgroup func(instance int) (string, error)
	Log    *slog.Logger
}

// Path steers; see path.Path for the contract of its methods.
type Path struct {
	options Options
	log     *slog.Logger
	store   *path.Store

	kernel    steer.SelfTestResult // what steering can do here
	strategy  balance.Strategy     // in force; Options.Strategy is what was asked for
	addresses []*address
	members   map[int]*member
	ring      []uint16
	counter   *counter
	moved     moved
	turn      chan struct{} // holds one token while no probe is under way

	given  uint64 // connections at the last look
	queued bool   // something waited then, or was moved since
}

var _ path.Path = (*Path)(nil)

// member is what an instance has in the groups.
type member struct {
	number    int
	listeners map[*address]*listener
	draining  bool
	before    before // while it drains
	seen      sight
}

// listener is one descriptor of an instance: a dup of what PID 1 and the instance hold, owned here.
type listener struct {
	fd     int
	cookie uint64 // SO_COOKIE: which socket it is, over all dups
	cgroup uint64 // of the socket unit; zero until connections are counted

	was      steer.Snapshot // when it joined; after a crash of the shim, when it was adopted
	deferred int            // TCP_DEFER_ACCEPT in seconds, while that is off for a probe
}

// Open attaches to the listeners at once, so new connections are steered when it returns, by the
// ring of an earlier process if there was one.
func Open(o Options) (*Path, error) {
	p := &Path{
		options: o, log: o.Log, store: o.Store, kernel: steer.SelfTest(), members: make(map[int]*member), turn: make(chan struct{}, 1),
	}
	p.turn <- struct{}{}
	p.strategy = p.firstStrategy()
	var err error
	if p.counter, err = newCounter(o.Diag); err != nil {
		return nil, err
	}
	if p.addresses, err = path.OpenListeners(o.Parking, p.openAddress); err != nil {
		return nil, err
	}
	p.takeMoved()
	for number, fds := range p.store.TakeListeners() {
		p.adoptListeners(number, fds)
	}
	return p, nil
}

// Close lets go of what this process holds, after Run. The kernel steers on.
func (p *Path) Close() error {
	var errs []error
	for number := range p.members {
		for _, l := range p.members[number].listeners {
			unix.Close(l.fd)
		}
	}
	for _, a := range p.addresses {
		errs = append(errs, a.group.Close())
		unix.Close(a.parking)
	}
	if p.counter.conn != nil {
		errs = append(errs, p.counter.conn.Close())
	}
	return errors.Join(errs...)
}

// Run is of path.Path: the kernel delivers.
func (p *Path) Run(ctx context.Context) error {
	<-ctx.Done()
	return p.counter.end()
}

// Changed is of path.Path: it ticks when connections of an app of which an instance drains have
// ended.
func (p *Path) Changed() <-chan struct{} { return p.counter.changed }

// Serves is of path.Path: PID 1 tells which instances serve.
func (p *Path) Serves(int) path.Answer { return path.Yes }

// SetRing is of path.Path.
func (p *Path) SetRing(ring []uint16) error {
	p.ring = append(make([]uint16, 0, len(ring)), ring...) // not nil
	for _, a := range p.addresses {
		if err := a.group.SetRing(ring); err != nil {
			return fmt.Errorf("set ring of %s: %w", a, err)
		}
	}
	return nil
}

// Refuse is of path.Path: the kernel refuses.
func (p *Path) Refuse() (byRoot []int) {
	for _, a := range p.addresses {
		if err := a.group.Refuse(); err != nil {
			p.log.Error("refuse new connections, ignoring", "address", a.String(), "error", err)
		}
	}
	return nil
}

// Describe is of path.Path.
func (p *Path) Describe() path.Description {
	d := path.Description{Path: app.PathSteer, Reason: p.reason(), Strategy: p.strategy}
	for _, a := range p.addresses {
		totals := a.group.Totals()
		waiting, err := queue(a.parking)
		if err != nil {
			p.log.Warn("read parking queue, ignoring", "address", a.String(), "error", err)
		}
		d.Addresses = append(d.Addresses, control.AddressStatus{
			Address: a.String(), Waiting: waiting, Parked: a.group.Steered(steer.Parking),
			Migrated: totals.Migrated, Refused: totals.Refused, Unplaced: totals.Unplaced,
		})
	}
	for number := range p.members {
		d.Instances = append(d.Instances, number)
	}
	slices.Sort(d.Instances)
	return d
}

// Join is of path.Path.
func (p *Path) Join(number int, fds []int) (joined bool, err error) {
	found, err := p.match(fds)
	if err != nil {
		sock.CloseAll(fds)
		return false, err
	}
	before := p.members[number]
	if before != nil && before.holds(found) {
		sock.CloseAll(fds)
		return false, nil
	}
	p.Leave(number)
	p.startCounting(number)
	if err = p.take(number, found); err == nil {
		if err = p.store.PutListeners(number, fds...); err != nil {
			err = fmt.Errorf("store listeners of instance %d: %w", number, err)
		}
	}
	if err != nil {
		p.Leave(number)
		return false, err
	}
	if before != nil && before.draining {
		m := p.members[number]
		m.draining, m.before = true, before.before // its program may have connections of the old listeners
		p.watchEnds()
	}
	return true, nil
}

// adoptListeners gives an instance the listeners that an earlier process stored for it.
func (p *Path) adoptListeners(number int, fds []int) {
	found, err := p.match(fds)
	if err != nil {
		sock.CloseAll(fds)
	} else {
		err = p.take(number, found)
	}
	if err != nil {
		p.log.Warn("adopt listeners, ignoring", "instance", number, "error", err)
	}
}

// match finds the address of each listener: descriptors come out of the FD store in no order. Every
// address must have one, or the instance would be left out of that address in silence.
func (p *Path) match(fds []int) (map[*address]*listener, error) {
	found := make(map[*address]*listener)
	for _, fd := range fds {
		l, err := steer.Describe(fd)
		if err != nil {
			return nil, err
		}
		a := p.addressOf(l)
		if a == nil {
			return nil, fmt.Errorf("listener of %v: the app has no such address", l.Address)
		}
		if found[a] != nil {
			return nil, fmt.Errorf("listener of %v: passed twice", l.Address)
		}
		found[a] = &listener{fd: fd, cookie: l.Cookie}
	}
	for _, a := range p.addresses {
		if found[a] == nil {
			return nil, fmt.Errorf("listener of %s: missing", a)
		}
	}
	return found, nil
}

// take puts listeners into their groups. They are the instance's from then on, also when take
// fails.
func (p *Path) take(number int, found map[*address]*listener) error {
	m := &member{number: number, listeners: found}
	p.members[number] = m
	for a, l := range found {
		var err error
		if l.was, err = steer.TakeSnapshot(l.fd); err != nil {
			return fmt.Errorf("take listener of instance %d for %s: %w", number, a, err)
		}
		if err := a.group.Put(number, l.fd); err != nil {
			return fmt.Errorf("put listener of instance %d for %s: %w", number, a, err)
		}
	}
	return nil
}

func (m *member) holds(found map[*address]*listener) bool {
	for a, l := range found {
		if have := m.listeners[a]; have == nil || have.cookie != l.cookie {
			return false
		}
	}
	return len(found) == len(m.listeners)
}

// Leave is of path.Path. Closing the last descriptor of a listener moves its queue to the instances
// on the ring (inet_csk_listen_stop in net/ipv4/inet_connection_sock.c).
func (p *Path) Leave(number int) {
	if err := p.store.RemoveListeners(number); err != nil {
		p.log.Warn("remove stored listener, ignoring", "instance", number, "error", err)
	}
	m := p.members[number]
	if m == nil {
		return
	}
	delete(p.members, number)
	for a, l := range m.listeners {
		if err := a.group.Remove(number); err != nil {
			p.log.Warn("take listener off, ignoring", "instance", number, "error", err)
		}
		unix.Close(l.fd)
	}
	p.watchEnds()
}

// Drain is of path.Path.
func (p *Path) Drain(number int, draining bool) {
	if m := p.members[number]; m != nil {
		if draining && !m.draining {
			m.before = p.leftRing()
		}
		m.draining = draining
	}
	p.watchEnds()
}

// watchEnds listens for ends of connections while an instance drains.
func (p *Path) watchEnds() {
	draining := false
	for _, m := range p.members {
		draining = draining || m.draining
	}
	if err := p.counter.watchEnds(draining, p.ports()); err != nil {
		p.log.Warn("watch ends of connections, drains go by the tick", "error", err)
	}
}

// Configure is of path.Path.
func (p *Path) Configure(s path.Settings) error {
	if s.Strategy == p.options.Strategy {
		return nil
	}
	switch {
	case s.Strategy.CountsConnections() && !p.counting():
		return &path.Impossible{Reason: fmt.Sprintf("strategy %s needs CAP_NET_ADMIN, which a running process cannot get: "+
			"systemctl restart %s", s.Strategy, p.options.App)}
	case s.Strategy == balance.SourceHash && !p.kernel.Distribution:
		return &path.Impossible{Reason: fmt.Sprintf("strategy %s needs eBPF: %s", s.Strategy, p.kernel)}
	}
	for _, a := range p.addresses {
		if a.ebpf == nil {
			continue
		}
		if err := a.ebpf.Pick(s.Strategy); err != nil {
			return err
		}
	}
	p.strategy, p.options.Strategy = s.Strategy, s.Strategy
	return nil
}

// clampSince is the time from which on a look that comes at now can tell.
func clampSince(last, now time.Time) time.Time {
	if first := now.Add(-path.LookEvery); last.Before(first) {
		return first
	}
	return last
}
