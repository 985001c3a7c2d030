package steered

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/sockdiag"
	"github.com/unitgen/unitgen/internal/steer"
)

// countPause is how long after a count the next one is made, if connections have ended. A count
// walks all of the kernel's table of TCP connections, a millisecond or two on a usual host however
// few there are, and on a busy app thousands end in a second; so a drain notices its last one that
// much later.
const countPause = 50 * time.Millisecond

// counter counts the open connections of instances. Without descriptors it cannot.
type counter struct {
	conn    *sockdiag.Conn
	watch   *sockdiag.Watch // nil: no events, counts go by the tick
	changed chan struct{}
	counted atomic.Int64 // when the last count ended, in ns since 1970

	mu     sync.Mutex
	closed *sockdiag.Subscription // nil: not subscribed
	quit   chan struct{}          // ends passOn
	passed sync.WaitGroup
	ended  bool // no subscription stands any more, nor will
}

// newCounter takes over the netlink sockets of app-diag.socket: the first to count with, the second
// for events.
func newCounter(diag []int) (*counter, error) {
	c := &counter{changed: make(chan struct{}, 1)}
	if len(diag) == 0 {
		return c, nil
	}
	var err error
	if c.conn, err = sockdiag.New(diag[0]); err != nil {
		return nil, err
	}
	if len(diag) > 1 {
		if c.watch, err = sockdiag.NewWatch(diag[1]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// watchEnds subscribes to the ends of connections, or ends that. The kernel tells of every TCP
// socket of the host that ends, so the shim listens only while a drain waits.
func (c *counter) watchEnds(on bool, ports []uint16) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watch == nil || on == (c.closed != nil) || on && c.ended {
		return nil
	}
	if !on {
		close(c.quit)
		err := c.closed.Stop()
		c.passed.Wait()
		c.closed = nil
		return err
	}
	sub, err := c.watch.Subscribe(ports)
	if err != nil {
		return err
	}
	c.closed, c.quit = sub, make(chan struct{})
	c.passed.Add(1)
	go c.passOn(sub, c.quit)
	return nil
}

// passOn turns ends of connections into ticks until quit, countPause after the last count and the
// last tick.
func (c *counter) passOn(sub *sockdiag.Subscription, quit <-chan struct{}) {
	defer c.passed.Done()
	var ticked time.Time
	for range sub.C {
		last := time.Unix(0, c.counted.Load())
		if last.Before(ticked) {
			last = ticked
		}
		select {
		case <-time.After(time.Until(last.Add(countPause))):
		case <-quit:
			continue // until the subscription has ended
		}
		ticked = time.Now()
		select {
		case c.changed <- struct{}{}:
		default: // a tick is due already
		}
	}
}

// end ends the subscription: events that nobody reads would make PID 1 start the shim again.
func (c *counter) end() error {
	err := c.watchEnds(false, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	return err
}

// Count is of path.Path.
func (p *Path) Count(time.Time) (map[int]path.Traffic, error) {
	counts, err := p.count()
	traffic := make(map[int]path.Traffic)
	if all, ok := counts.byInstance[path.Parking]; ok {
		traffic[path.Parking] = path.Traffic{Counted: true, Open: all.Open, Accepted: all.Open - all.Queued}
	}
	for number, m := range p.members {
		c, counted := counts.byInstance[number]
		t := path.Traffic{
			Given: p.steered(number), Waiting: c.Queued,
			Counted: counted, Own: counted && m.ownCgroup(), Open: c.Open, Accepted: c.Open - c.Queued,
		}
		if m.draining {
			held := counts.held[number]
			t.Busy = held.Busy + held.Queued
			t.Quiet = counted && t.Busy == 0 && held.Unsure == 0
			t.Taken, t.Unanswered = p.unanswered(m, held)
		}
		traffic[number] = t
	}
	return traffic, err
}

// unanswered says whether nothing waits to be accepted, and for how long the oldest request has
// waited for its answer. The program may close its listeners as soon as it is told to stop, so what
// is in their queues has no answer for sure. Where connections cannot be counted, the program waits
// for all of them itself.
func (p *Path) unanswered(m *member, held sockdiag.Stat) (taken bool, oldest time.Duration) {
	queued, err := m.queue()
	if err != nil || queued > 0 {
		return false, math.MaxInt64
	}
	return true, held.Waiting
}

// counted are the open connections of the app at one count.
type counted struct {
	byInstance map[int]sockdiag.Stat // path.Parking: those that anybody may have
	held       map[int]sockdiag.Stat // of draining instances: see before
}

// under is what a connection counts under: the cgroup of its listener, or as one that anybody may
// have (the zero value), or as one of these that a draining instance may have.
type under struct {
	cgroup   uint64
	instance int
}

// count counts the open connections of every instance, in one walk through the kernel's table.
// Parking are those that anybody may have: they were parked first, and carry the cgroup of
// app.socket, or they were moved.
func (p *Path) count() (counted, error) {
	if p.counter.conn == nil {
		return counted{}, path.ErrCannotCount
	}
	if err := p.findCgroups(); err != nil {
		return counted{}, err
	}
	open, unplaced, placed := make(map[uint64]bool), p.unplaced(), p.placed()
	stats, err := sockdiag.CountBy(p.counter.conn, sockdiag.Filter{Ports: p.ports()}, func(c sockdiag.Connection, keys []under) []under {
		if !p.moved.cookies[c.Cookie] {
			keys = append(keys, under{cgroup: c.Cgroup})
		} else {
			open[c.Cookie] = true
			keys = append(keys, under{})
		}
		if !p.anybodys(c) {
			return keys
		}
		for number, m := range p.members {
			if m.draining && m.mayHold(number, c.Cookie, placed, unplaced) {
				keys = append(keys, under{instance: number})
			}
		}
		return keys
	})
	p.counter.counted.Store(time.Now().UnixNano())
	if err != nil {
		return counted{}, err
	}
	p.moved.cookies = open
	n := counted{byInstance: make(map[int]sockdiag.Stat), held: make(map[int]sockdiag.Stat)}
	n.byInstance[path.Parking] = stats[under{cgroup: p.addresses[0].cgroup}].Plus(stats[under{}])
	for number, m := range p.members {
		// All listeners of an instance are of one socket unit, and so of one cgroup.
		for _, l := range m.listeners {
			n.byInstance[number] = stats[under{cgroup: l.cgroup}]
			break
		}
		n.held[number] = held(n.byInstance[number], stats[under{instance: number}])
	}
	return n, nil
}

// held is what may keep an instance from being stopped: its own connections, and those of anybody's
// that it may have. Of the latter those that wait in a queue are left out: they are served by
// others.
func held(own, anybodys sockdiag.Stat) sockdiag.Stat {
	anybodys.Queued = 0
	return own.Plus(anybodys)
}

// anybodys says that a connection does not show which instance has it.
func (p *Path) anybodys(c sockdiag.Connection) bool {
	return c.Cgroup == p.addresses[0].cgroup || p.moved.cookies[c.Cookie]
}

// before is what was anybody's when an instance left the ring. What is parked or moved after that
// goes to an instance on the ring, so it is not this instance's, however long it lasts: under a
// restart, in which all instances drain, everything that comes is parked.
type before struct {
	cookies  map[uint64]bool // nil: they could not be listed
	unplaced uint64          // what the kernel had spread by its hash by then
}

// leftRing takes down what is anybody's now.
func (p *Path) leftRing() before {
	b := before{unplaced: p.unplaced()}
	if p.counter.conn == nil {
		return b
	}
	cookies := make(map[uint64]bool)
	err := p.findCgroups()
	if err == nil {
		err = p.counter.conn.Connections(sockdiag.Filter{Ports: p.ports()}, func(c sockdiag.Connection) {
			if p.anybodys(c) {
				cookies[c.Cookie] = true
			}
		})
	}
	if err != nil {
		p.log.Warn("list connections, a drain waits for all that were moved", "error", err)
		return b
	}
	b.cookies = cookies
	return b
}

// mayHold says whether the instance may have a connection that is anybody's. It may have each of
// them once the kernel has spread some by its hash, which knows of no ring.
func (b before) mayHold(cookie, unplaced uint64) bool {
	return b.cookies == nil || b.cookies[cookie] || b.unplaced != unplaced
}

// mayHold says whether a draining instance may have a connection that is anybody's. The steering
// program has noted who has those that moved last.
func (m *member) mayHold(number int, cookie uint64, placed []steer.Placed, unplaced uint64) bool {
	for _, p := range placed {
		if slot, known := p.Slot(cookie); known && m.before.unplaced == unplaced {
			return slot == number
		}
	}
	return m.before.mayHold(cookie, unplaced)
}

// placed is where connections have moved, which costs a look at steer.Moves words. Nothing is known
// once the kernel has spread some by its hash, as these may have moved before.
func (p *Path) placed() (all []steer.Placed) {
	if p.unplaced() > 0 {
		return nil
	}
	for _, a := range p.addresses {
		if a.ebpf != nil {
			all = append(all, a.ebpf.Placed())
		}
	}
	return all
}

// unplaced is how many connections the kernel has spread by its hash.
func (p *Path) unplaced() (n uint64) {
	for _, a := range p.addresses {
		n += a.group.Totals().Unplaced
	}
	return n
}

// ownCgroup says whether connections of the instance can be distinguished from others. Sockets that
// a user's manager opens carry the manager's cgroup, all of them (socket_address_listen_in_cgroup
// in src/core/socket.c): counts are the whole app's then.
func (m *member) ownCgroup() bool {
	for a, l := range m.listeners {
		return l.cgroup != 0 && l.cgroup != a.cgroup
	}
	return false
}

// findCgroups learns the cgroup of listeners that joined since the last count. An accepted
// connection carries the cgroup of its listener, which is that of the socket unit.
func (p *Path) findCgroups() error {
	unknown := p.addresses[0].cgroup == 0
	for _, m := range p.members {
		for _, l := range m.listeners {
			unknown = unknown || l.cgroup == 0
		}
	}
	if !unknown {
		return nil
	}
	all, err := p.counter.conn.Listeners(p.ports())
	if err != nil {
		return fmt.Errorf("find cgroups of listeners: %w", err)
	}
	cgroups := make(map[uint64]uint64)
	for _, l := range all {
		cgroups[l.Cookie] = l.Cgroup
	}
	for _, a := range p.addresses {
		a.cgroup = cgroups[a.Cookie]
	}
	for number, m := range p.members {
		for _, l := range m.listeners {
			if l.cgroup = cgroups[l.cookie]; l.cgroup == 0 {
				return fmt.Errorf("find cgroup of instance %d: its listener is not in this network namespace", number)
			}
		}
	}
	return nil
}

// ports are those of the app's public addresses.
func (p *Path) ports() []uint16 {
	var ports []uint16
	for _, a := range p.addresses {
		ports = append(ports, a.Address.Port())
	}
	return ports
}
