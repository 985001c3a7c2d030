// Package channel is the balancer's side of the channels that programs speak over: messages of the
// program's own, what drain.cjs tells of a Node.js program and is told, and on a path that gives
// connections to programs the listen protocol of Node's cluster module. Package nodecluster is the
// codec of all of these.
//
// A channel costs a message what reading and writing it costs, and a drain one question and one
// report each tick. What a program may cause is limited: see changesBurst, admitBurst and
// readWithin.
//
// It is not for programs without a channel: for those each method does nothing.
package channel

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/internal/sdlog"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Options are what does not change while Channels run.
type Options struct {
	App      app.Name
	Listener *net.UnixListener // of app-channel.socket; nil where programs have no channel
	// Receiving gives programs their connections over their channels; nil where programs accept for
	// themselves.
	Receiving path.Receiving
	Messages  bool // channels carry messages only: the programs are not ones for Node.js
	Store     *path.Store
	Manager   systemd.Endpoint // asked who connects
	// Do runs f on the shim's goroutine and returns when it has; false if ctx or the shim ended
	// first.
	Do  func(ctx context.Context, f func()) bool
	Log *slog.Logger
}

// Channels are those of an app. All methods are called from the shim's one goroutine, except Run
// and Send.
type Channels struct {
	options   Options
	settings  control.Settings
	store     *path.Store
	log       *slog.Logger
	strangers *slog.Logger
	addresses []nodecluster.Address // that are promised to programs; none without Receiving
	instances map[int]*instance
	drains    map[*Drain]bool
	adopted   []*conn // Run speaks on them

	tickets   nodecluster.Tickets // with Receiving
	keys      []byte              // of session tickets, without Receiving; nil before a process is there
	changed   chan struct{}       // closed and replaced when a process attaches, listens, closes or ends
	asked     int                 // the token of the latest drain's reports
	saved     int                 // how often the state was saved
	savedLast []byte              // the state that was saved last
}

// New makes Channels that know no instance yet.
func New(o Options, s control.Settings) *Channels {
	c := &Channels{
		options: o, settings: s, store: o.Store, log: o.Log, strangers: sdlog.Limited(o.Log),
		instances: make(map[int]*instance), drains: make(map[*Drain]bool),
		tickets: make(nodecluster.Tickets), changed: make(chan struct{}),
	}
	if o.Receiving != nil {
		for _, a := range o.Receiving.Addresses() {
			c.addresses = append(c.addresses, nodecluster.Address{TCP: a.TCP, Path: a.Unix})
		}
	}
	return c
}

// instance is the state of the program of a joined instance.
type instance struct {
	number   int
	state    balance.State // by PID 1
	draining int           // Drains that have not ended
	program  *program      // nil while it has no channel
	refused  string        // why the last listen() of its program got nothing, also when the program has ended of that
	said     *slog.Logger  // for what the program itself causes
}

// program is the process of an instance that has a channel, until the end of that: one of Node.js,
// unless Options.Messages.
type program struct {
	channel *conn
	ready   bool // it has sent "ready"
	gone    bool // the channel has ended; with Receiving the process ends too
	// slow is the time until which no sender waits for it to read its messages; a past time if it
	// reads them.
	slow time.Time

	// preloaded says that drain.cjs is in the process. Its latest report is asked for while the
	// instance drains. With Receiving the path gets it.
	preloaded bool
	report    nodecluster.Message

	// With Receiving: what it serves.
	worker  nodecluster.Worker
	unknown bool // adopted, and what the shim before knew of it is lost: it gets no connections until it restarts
}

// Join notes an instance that has joined.
func (c *Channels) Join(number int) {
	if c.instances[number] == nil {
		c.instances[number] = &instance{number: number, said: sdlog.Limited(c.log).With("instance", number)}
	}
}

// Leave ends the channel of an instance, and forgets it.
func (c *Channels) Leave(number int) {
	if in := c.instances[number]; in != nil {
		delete(c.instances, number)
		c.drop(in)
	}
}

// StateChanged notes the state of an instance by PID 1.
func (c *Channels) StateChanged(number int, to balance.State) {
	if in := c.instances[number]; in != nil {
		in.state = to
		c.forget(in)
	}
}

// Configure takes over settings.
func (c *Channels) Configure(s control.Settings) { c.settings = s }

// receives reports whether programs get their connections on their channels.
func (c *Channels) receives() bool { return c.options.Receiving != nil }

// reachable reports whether messages can be sent to its process.
func (in *instance) reachable() bool { return in.program != nil && !in.program.gone }

// attached says whether the instance's process is one of Node.js that has a channel.
func (c *Channels) attached(in *instance) bool {
	return in != nil && in.reachable() && !c.options.Messages
}

// run runs f where the state is and returns its error.
func (c *Channels) run(ctx context.Context, f func() error) error {
	var err error
	if !c.options.Do(ctx, func() { err = f() }) {
		return path.ErrEnded
	}
	return err
}

// programChanged follows up on a change of an instance's process.
func (c *Channels) programChanged(in *instance) {
	c.serving(in)
	c.save()
	c.Announce()
}

// Announce wakes those that wait for Changed.
func (c *Channels) Announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Changed is closed at the next change of a program's servers, or at its next message about them.
func (c *Channels) Changed() <-chan struct{} { return c.changed }

// removeChannel takes the channel of an instance out of the FD store.
func (c *Channels) removeChannel(number int) {
	if err := c.store.Remove(channelStoreName(number)); err != nil {
		c.log.Warn("remove stored channel, ignoring", "instance", number, "error", err)
	}
}

func channelStoreName(number int) string { return storedChannel + strconv.Itoa(number) }
