// Package handed is the data path on which the balancer hands out the connections: package handoff
// tells an instance on its channel to accept the next one, or gives it one. All addresses share one
// dispatcher. An instance has a private listener, which nobody here connects to: it stands for the
// instance.
//
// The cost per connection is that of package handoff. A tick costs one lock for each instance, and
// so does a count.
//
// It is not for TCP that can be steered (package steered costs nothing per connection).
package handed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/sockdiag"
)

// Options are the settings of a Path.
type Options struct {
	App            app.Name
	Strategy       balance.Strategy
	MaxConnections int   // open connections that an instance has at most; zero means any number
	Parking        []int // the public listeners of app.socket, owned by the Path
	Diag           []int // NETLINK_SOCK_DIAG sockets of the host's network namespace, or none; only the first is used
	Receivers      bool  // the instances are given their connections by protocols of their programs
	Store          *path.Store
	Log            *slog.Logger
}

// Path hands out; see path.Path for the contract of its methods.
type Path struct {
	options    Options
	log        *slog.Logger
	store      *path.Store
	diag       *sockdiag.Conn // nil: queues of unix sockets are not counted
	addresses  []*address
	dispatcher *handoff.Dispatcher
	members    map[int]*member
	ring       []uint16
	opened     time.Time
	refused    bool // on purpose: the listeners drop connection requests
	changed    chan struct{}
}

var (
	_ path.Path      = (*Path)(nil)
	_ path.Receiving = (*Path)(nil)
)

// member is an instance. It owns the descriptor of its private listener.
type member struct {
	fd       int
	cookie   uint64 // SO_COOKIE: which socket it is, over all dups
	adopted  bool   // it joined an earlier process
	draining bool
	asked    int // answers to Ask before those that count for the drain
}

// storedChannel names the channel of an instance in the FD store; its number follows.
const storedChannel = "handoff@"

func storeName(number int) string { return storedChannel + strconv.Itoa(number) }

// Open takes the public listeners over. Nothing is handed out before Run.
func Open(o Options) (*Path, error) {
	p := &Path{options: o, log: o.Log, store: o.Store, members: make(map[int]*member), opened: time.Now(), changed: make(chan struct{}, 1)}
	var err error
	if len(o.Diag) > 0 {
		if p.diag, err = sockdiag.New(o.Diag[0]); err != nil {
			return nil, err
		}
	}
	if p.addresses, err = path.OpenListeners(o.Parking, p.openAddress); err != nil {
		return nil, err
	}
	p.dispatcher, err = handoff.New(handoff.Options{
		Listeners: o.Parking, Receivers: o.Receivers, Waiting: p.waitingAt, Changed: p.tick, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	p.dispatcher.Limit(o.MaxConnections)
	for number, fds := range p.store.TakeListeners() {
		p.adopt(number, fds)
	}
	return p, nil
}

// adopt gives an instance the private listener that an earlier process stored for it, and the
// channel.
func (p *Path) adopt(number int, fds []int) {
	m, err := match(fds)
	if err != nil {
		sock.CloseAll(fds)
		p.log.Warn("adopt listeners, ignoring", "instance", number, "error", err)
		return
	}
	m.adopted = true
	p.members[number] = m
	channels := p.store.Take(storeName(number))
	if len(channels) == 0 {
		return
	}
	// There can be two if the earlier process was killed after it had put one and before PID 1
	// removed the one before. It is not known which is newer.
	sock.CloseAll(channels[1:])
	if err := p.dispatcher.Attach(number, channels[0]); err != nil {
		p.log.Warn("adopt channel, ignoring", "instance", number, "error", err)
	}
}

// tick is what Changed tells.
func (p *Path) tick() {
	select {
	case p.changed <- struct{}{}:
	default: // a tick is due already
	}
}

// Close lets go of what this process holds, after Run.
func (p *Path) Close() error {
	for _, m := range p.members {
		unix.Close(m.fd)
	}
	for _, a := range p.addresses {
		unix.Close(a.fd)
	}
	if p.diag != nil {
		return p.diag.Close()
	}
	return nil
}

// Run is of path.Path.
func (p *Path) Run(ctx context.Context) error { return p.dispatcher.Run(ctx) }

// Changed is of path.Path: it ticks when an instance has said something.
func (p *Path) Changed() <-chan struct{} { return p.changed }

// Join is of path.Path.
func (p *Path) Join(number int, fds []int) (joined bool, err error) {
	m, err := match(fds)
	if err != nil {
		sock.CloseAll(fds)
		return false, err
	}
	before := p.members[number]
	if before != nil && before.cookie == m.cookie {
		sock.CloseAll(fds)
		return false, nil
	}
	p.leave(number)
	p.members[number] = m
	if err := p.store.PutListeners(number, fds...); err != nil {
		p.Leave(number)
		return false, fmt.Errorf("store listeners of instance %d: %w", number, err)
	}
	if before != nil {
		m.adopted, m.draining, m.asked = before.adopted, before.draining, before.asked
	}
	return true, nil
}

// match takes the private listener of an instance.
func match(fds []int) (*member, error) {
	if len(fds) != 1 {
		return nil, fmt.Errorf("%d listeners, want the one for the handoff path", len(fds))
	}
	for option, want := range map[int]int{unix.SO_DOMAIN: unix.AF_UNIX, unix.SO_TYPE: unix.SOCK_SEQPACKET, unix.SO_ACCEPTCONN: 1} {
		if got, err := unix.GetsockoptInt(fds[0], unix.SOL_SOCKET, option); err != nil || got != want {
			return nil, errors.Join(errors.New("listener is not of the handoff path (ListenSequentialPacket=)"), err)
		}
	}
	cookie, err := sock.Cookie(fds[0])
	if err != nil {
		return nil, err
	}
	return &member{fd: fds[0], cookie: cookie}, nil
}

// Leave is of path.Path.
func (p *Path) Leave(number int) { p.leave(number) }

// leave ends the channel that came by an instance's listener, here and in the Store. That of a
// Receiver did not, and ends with its process.
func (p *Path) leave(number int) {
	if err := p.store.RemoveListeners(number); err != nil {
		p.log.Warn("remove stored listener, ignoring", "instance", number, "error", err)
	}
	if !p.options.Receivers {
		p.dispatcher.Detach(number)
		if err := p.store.Remove(storeName(number)); err != nil {
			p.log.Warn("remove stored channel, ignoring", "instance", number, "error", err)
		}
	}
	if m := p.members[number]; m != nil {
		unix.Close(m.fd)
		delete(p.members, number)
	}
}

// SetRing is of path.Path, with the strategy that is in force.
func (p *Path) SetRing(ring []uint16) error {
	p.ring = slices.Clone(ring)
	p.dispatcher.SetRing(p.options.Strategy, ring)
	return nil
}

// adoptLimit is how long a new process waits for what the instances that it has adopted say. One
// that does not hang and gets a processor says it within a millisecond. Without the wait a client
// of source-hash would go to its second best, and counts would be wrong.
const adoptLimit = 5 * time.Second

// Serves is of path.Path: an instance serves when its program asks for connections.
func (p *Path) Serves(number int) path.Answer {
	if p.dispatcher.Stat(number).Ready {
		return path.Yes
	}
	if m := p.members[number]; m != nil && m.adopted && time.Since(p.opened) < adoptLimit {
		return path.Unknown
	}
	return path.No
}

// Drain is of path.Path: the instance tells what it has.
func (p *Path) Drain(number int, draining bool) {
	m := p.members[number]
	if m == nil {
		return
	}
	if m.draining = draining; draining {
		p.ask(number, m)
	}
}

// ask has an instance that drains tell what it has. What it has told before does not count.
func (p *Path) ask(number int, m *member) {
	m.asked = p.dispatcher.Stat(number).Asked
	p.dispatcher.Ask(number)
}

// Rescue is of path.Path. What waits is nobody's, and an order that an instance has not carried out
// goes to another one as soon as the instance is off the ring.
func (p *Path) Rescue(int) (moved int) { return 0 }

// Look is of path.Path. It also asks the instances that drain again, if they have answered.
func (p *Path) Look(time.Time) (map[int]path.Look, []path.Harm) {
	looks := make(map[int]path.Look)
	for number, m := range p.members {
		st := p.dispatcher.Stat(number)
		looks[number] = path.Look{
			Given: st.Given, Waiting: st.Pending, Behind: st.Waits >= path.LookEvery, Stalled: st.Waits, Progress: st.Pending == 0,
		}
		if m.draining && st.Asked > m.asked {
			p.ask(number, m)
		}
	}
	return looks, p.guard()
}

// Count is of path.Path: the instances tell.
func (p *Path) Count(time.Time) (map[int]path.Traffic, error) {
	traffic := make(map[int]path.Traffic)
	for number, m := range p.members {
		st := p.dispatcher.Stat(number)
		t := path.Traffic{
			Given: st.Given, Waiting: st.Pending, Counted: true, Own: true, Open: st.Open, Accepted: st.Open, Busy: min(st.Busy, st.Open),
		}
		if m.draining {
			told := st.Open == 0 || st.Asked > m.asked
			t.Taken = st.Pending == 0
			t.Quiet = t.Taken && told && t.Busy == 0
			if !t.Taken || !told {
				t.Unanswered = math.MaxInt64
			}
		}
		traffic[number] = t
	}
	return traffic, nil
}

// Renew is of path.Path: nobody but the instance has a use for its private listener.
func (p *Path) Renew(int) []path.Harm { return nil }

// StateChanged is of path.Path: no probe touches a listener here.
func (p *Path) StateChanged(int) {}

// Configure is of path.Path.
func (p *Path) Configure(s path.Settings) error {
	p.dispatcher.Limit(s.MaxConnections)
	if s.Strategy != p.options.Strategy {
		p.options.Strategy = s.Strategy
		p.dispatcher.SetRing(s.Strategy, p.ring)
	}
	return nil
}

// Describe is of path.Path.
func (p *Path) Describe() path.Description {
	d := path.Description{Path: app.PathHandoff, Reason: "asked for", Strategy: p.options.Strategy}
	for _, a := range p.addresses {
		if a.path != "" {
			d.Reason = "unix sockets cannot be steered"
		}
		waiting, _, err := p.queueOf(a)
		if err != nil {
			p.log.Warn("read parking queue, ignoring", "address", a.String(), "error", err)
		}
		d.Addresses = append(d.Addresses, control.AddressStatus{Address: a.String(), Waiting: waiting})
	}
	for number := range p.members {
		d.Instances = append(d.Instances, number)
	}
	slices.Sort(d.Instances)
	return d
}
