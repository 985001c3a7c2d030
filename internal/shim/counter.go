package shim

import (
	"errors"
	"fmt"
	"time"

	"github.com/unitgen/unitgen/internal/sockdiag"
)

// errCannotCount says that PID 1 passed no socket to count connections with.
var errCannotCount = errors.New("connections cannot be counted: app-diag.socket passed nothing")

// countPause is how long after a count the next one is made, if connections have ended. A count walks all of the kernel's
// table of TCP connections, a millisecond or two on a usual host however few there are, and on a busy app thousands end in a
// second; so a drain notices its last one that much later.
const countPause = 50 * time.Millisecond

// counter counts the open connections of instances. Its zero value cannot.
type counter struct {
	conn   *sockdiag.Conn
	watch  *sockdiag.Watch        // nil: no events, counts go by the tick
	closed *sockdiag.Subscription // nil: not subscribed

	counted time.Time // when the last count ended
	moved   moved
}

// newCounter takes over the netlink sockets of app-diag.socket: the first to count with, the second for events.
func newCounter(diag []int) (*counter, error) {
	c := &counter{}
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

// ended ticks after connections of the app ended, while watchEnds is on.
func (c *counter) ended() <-chan struct{} {
	if c.closed == nil {
		return nil
	}
	return c.closed.C
}

// watchEnds subscribes to the ends of connections, or ends that. The kernel tells of every TCP socket of the host that
// ends, so the shim listens only while a drain waits.
func (c *counter) watchEnds(on bool, ports []uint16) error {
	if c.watch == nil || on == (c.closed != nil) {
		return nil
	}
	if !on {
		err := c.closed.Stop()
		c.closed = nil
		return err
	}
	var err error
	c.closed, err = c.watch.Subscribe(ports)
	return err
}

// close ends the subscription: events that nobody reads would make PID 1 start the shim again.
func (c *counter) close() error {
	return c.watchEnds(false, nil)
}

// count returns the open connections of every instance, in one walk through the kernel's table. Number 0 are those that
// anybody may have: they were parked first, and carry the cgroup of app.socket, or they were moved.
func (s *Shim) count() (map[int]sockdiag.Stat, error) {
	if s.handsOff() {
		return s.countHanded(), nil
	}
	if s.counter.conn == nil {
		return nil, errCannotCount
	}
	if err := s.findCgroups(); err != nil {
		return nil, err
	}
	open := make(map[uint64]bool)
	stats, err := s.counter.conn.CountByCgroup(sockdiag.Filter{Ports: s.ports(), Apart: func(cookie uint64) bool {
		if s.counter.moved.cookies[cookie] {
			open[cookie] = true
		}
		return open[cookie]
	}})
	s.counter.counted = time.Now()
	if err != nil {
		return nil, err
	}
	s.counter.moved.cookies = open
	counts := map[int]sockdiag.Stat{0: stats[s.addresses[0].cgroup].Plus(stats[sockdiag.Apart])}
	for number, in := range s.instances {
		// All listeners of an instance are of one socket unit, and so of one cgroup.
		for _, l := range in.listeners {
			counts[number] = stats[l.cgroup]
			break
		}
	}
	return counts, nil
}

// held is what may keep an instance from being stopped: its own connections, and those that anybody may have. Of the latter
// those that wait in a queue are left out: they are served by others.
func held(number int, counts map[int]sockdiag.Stat) sockdiag.Stat {
	anybody := counts[0]
	anybody.Queued = 0
	return counts[number].Plus(anybody)
}

// ownCgroup says whether connections of the instance can be told from others. Sockets that a user's manager opens carry
// the manager's cgroup, all of them (socket_address_listen_in_cgroup in src/core/socket.c): counts are the whole app's then.
func (in *instance) ownCgroup() bool {
	for a, l := range in.listeners {
		return l.cgroup != 0 && l.cgroup != a.cgroup
	}
	return false
}

// findCgroups learns the cgroup of listeners that joined since the last count. An accepted connection carries the cgroup
// of its listener, which is that of the socket unit.
func (s *Shim) findCgroups() error {
	unknown := s.addresses[0].cgroup == 0
	for _, in := range s.instances {
		for _, l := range in.listeners {
			unknown = unknown || l.cgroup == 0
		}
	}
	if !unknown {
		return nil
	}
	all, err := s.counter.conn.Listeners(s.ports())
	if err != nil {
		return fmt.Errorf("find cgroups of listeners: %w", err)
	}
	cgroups := make(map[uint64]uint64)
	for _, l := range all {
		cgroups[l.Cookie] = l.Cgroup
	}
	for _, a := range s.addresses {
		a.cgroup = cgroups[a.Cookie]
	}
	for number, in := range s.instances {
		for _, l := range in.listeners {
			if l.cgroup = cgroups[l.cookie]; l.cgroup == 0 {
				return fmt.Errorf("find cgroup of instance %d: its listener is not in this network namespace", number)
			}
		}
	}
	return nil
}

// ports are those of the app's public addresses.
func (s *Shim) ports() []uint16 {
	var ports []uint16
	for _, a := range s.addresses {
		ports = append(ports, a.Address.Port())
	}
	return ports
}
