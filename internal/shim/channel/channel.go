// Package channel is the balancer's side of the channels that programs speak over: messages of the program's own, what
// drain.cjs tells of a Node.js program and is told, and on a path that gives connections to programs the listen protocol of
// Node's cluster module. Package nodecluster is the codec of all of these.
//
// A channel costs a message what reading and writing it costs, and a drain one question and one report each tick. What a
// program may cause is limited: see changesBurst, admitBurst and readWithin.
//
// It is not for programs without a channel: for those each method does nothing.
package channel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/internal/pace"
	"github.com/unitgen/unitgen/internal/sdlog"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Options are what does not change while Channels run.
type Options struct {
	App      app.Name
	Listener *net.UnixListener // of app-channel.socket; nil where programs have no channel
	// Receiving gives programs their connections over their channels; nil where programs accept for themselves.
	Receiving path.Receiving
	Messages  bool // channels carry messages only: the programs are not ones for Node.js
	Store     *path.Store
	Manager   systemd.Endpoint // asked who connects
	// Do runs f on the shim's goroutine and returns when it has; false if ctx or the shim ended first.
	Do  func(ctx context.Context, f func()) bool
	Log *slog.Logger
}

// maxStrangers bounds the processes at a time whose unit is being asked for: everybody on the host may connect to the
// channel socket. Further ones wait in its backlog.
const maxStrangers = 64

// Channels are those of an app. All methods are called from the shim's one goroutine, except Run and Send.
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

// instance is what is known of the program of an instance that has joined.
type instance struct {
	number   int
	state    balance.State // by PID 1
	draining int           // Drains that have not ended
	program  *program      // nil while it has no channel
	refused  string        // why the last listen() of its program got nothing, also when the program has ended of that
	said     *slog.Logger  // for what the program itself causes
}

// program is the process of an instance that has a channel, until the end of that: one of Node.js, unless Options.Messages.
type program struct {
	channel *conn
	ready   bool // it has sent "ready"
	gone    bool // the channel has ended; with Receiving the process ends too
	// slow is until when nobody waits for it to read its messages; a time that is past if it reads them.
	slow time.Time

	// preloaded says that drain.cjs is in the process. Its latest report is asked for while the instance drains. With
	// Receiving the path gets it.
	preloaded bool
	report    nodecluster.Message

	// With Receiving: what it serves.
	worker  nodecluster.Worker
	unknown bool // adopted without what the shim before knew of it: PID 1's word on its state is all there is
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
		c.dropNode(in)
	}
}

// StateChanged notes the state of an instance by PID 1.
func (c *Channels) StateChanged(number int, to balance.State) {
	if in := c.instances[number]; in != nil {
		in.state = to
		c.forgetNode(in)
	}
}

// Configure takes over settings.
func (c *Channels) Configure(s control.Settings) { c.settings = s }

// receives says whether programs are given their connections on their channels.
func (c *Channels) receives() bool { return c.options.Receiving != nil }

// reachable says whether its process can be sent messages.
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

// Run speaks with the programs, those adopted and those that come, until ctx ends. It fails when no more can come.
func (c *Channels) Run(ctx context.Context) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for _, channel := range c.adopted {
		sessions.Go(func() { c.converse(ctx, channel) })
	}
	ln := c.options.Listener
	if ln == nil {
		return nil
	}
	ln.SetUnlinkOnClose(false) // the path is PID 1's
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	strangers := make(chan struct{}, maxStrangers)
	admission := newAdmission()
	for {
		strangers <- struct{}{}
		conn, err := ln.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept channel: %w", err)
		}
		if err := admission.admit(conn, time.Now()); err != nil {
			c.strangers.Warn("channel refused", "error", err)
			conn.Close() // one that is not greeted tries again
			<-strangers
			continue
		}
		sessions.Go(func() {
			channel, err := c.admit(ctx, conn)
			conn.Close()
			<-strangers
			if err != nil {
				c.strangers.Warn("channel refused", "error", err)
				return
			}
			c.converse(ctx, channel)
		})
	}
}

// admit makes a channel of a connection if an instance's main process has made it. It greets the peer or tells it why
// not. The connection stays the caller's: the channel has a duplicate.
func (c *Channels) admit(ctx context.Context, conn *net.UnixConn) (*conn, error) {
	number, err := c.whoIs(ctx, conn)
	var refused *stranger
	if err != nil && !errors.As(err, &refused) {
		return nil, err // a peer that is not greeted tries again
	}
	if err != nil {
		// No more than that: the peer may be anybody.
		return nil, errors.Join(err, nodecluster.Greet(conn, nodecluster.Greeting{Error: "only an instance's main process may connect"}))
	}
	channel, err := c.channelOf(conn, number)
	if err == nil {
		if err = c.run(ctx, func() error { return c.attachNode(channel) }); err != nil {
			channel.Close()
		}
	}
	if err != nil {
		return nil, errors.Join(err, nodecluster.Greet(conn, nodecluster.Greeting{Error: err.Error()}))
	}
	if err := nodecluster.Greet(conn, nodecluster.Greeting{Instance: number}); err != nil {
		c.options.Do(ctx, func() { c.nodeGone(channel) })
		channel.Close()
		return nil, err
	}
	return channel, nil
}

func (c *Channels) channelOf(conn *net.UnixConn, number int) (*conn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	controlErr := raw.Control(func(of uintptr) { fd, err = duplicate(int(of)) })
	if err = errors.Join(controlErr, err); err != nil {
		return nil, err
	}
	channel, err := nodecluster.NewChannel(fd, 0)
	if err != nil {
		return nil, err
	}
	return c.newConn(number, channel), nil
}

// attachNode makes channel that of its instance and puts a duplicate into the FD store: should the shim die, the process does not
// see its channel end.
func (c *Channels) attachNode(channel *conn) error {
	number := channel.instance
	in := c.instances[number]
	if in == nil {
		return fmt.Errorf("instance %d has not joined", number)
	}
	if in.reachable() {
		in.program.channel.Close()
	}
	c.removeChannel(number)
	if err := channel.Descriptor(func(fd int) error { return c.store.PutPolled(channelStoreName(number), fd) }); err != nil {
		return err
	}
	if err := c.receive(channel, true); err != nil {
		c.removeChannel(number)
		return err
	}
	in.program, in.refused = &program{channel: channel}, ""
	c.askPreload(in.program)
	c.shareTickets(in.program)
	c.nodesChanged(in)
	return nil
}

// ticketKeysSize is of tls.Server.setTicketKeys.
const ticketKeysSize = 48

// shareTickets gives a process the keys of session tickets that all processes of the app have, so that a client of TLS resumes its
// session with whichever it comes to. On the handoff path they come with the answer to listen().
func (c *Channels) shareTickets(n *program) {
	if c.receives() || c.options.Messages {
		return
	}
	if c.keys == nil {
		c.keys = make([]byte, ticketKeysSize)
		rand.Read(c.keys) // never fails
	}
	n.channel.Order(nodecluster.UseTickets(c.keys))
}

// Attach makes a socket, which it takes over, the channel of an instance's program. The caller then runs speak, which hears
// the program until the channel or ctx ends.
func (c *Channels) Attach(number, fd int) (speak func(ctx context.Context), err error) {
	opened, err := nodecluster.NewChannel(fd, 0)
	if err != nil {
		return nil, err
	}
	channel := c.newConn(number, opened)
	if err := c.attachNode(channel); err != nil {
		channel.Close()
		return nil, err
	}
	return func(ctx context.Context) { c.converse(ctx, channel) }, nil
}

// converse hears what a process says until its channel or ctx ends. It owns the channel.
func (c *Channels) converse(ctx context.Context, channel *conn) {
	number := channel.instance
	stop := context.AfterFunc(ctx, func() { channel.Close() })
	defer stop()
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := channel.Write(done); err != nil && ctx.Err() == nil {
			c.log.Warn("channel fails, its process ends", "instance", number, "error", err)
			channel.Close()
		}
	})
	carrying, stopCarrying := context.WithCancel(ctx)
	writer.Go(func() {
		if err := channel.Carry(carrying); err != nil {
			c.log.Warn("messages to program cannot be sent", "instance", number, "error", err)
		}
	})
	defer func() {
		close(done)
		stopCarrying()
		channel.Close()
		writer.Wait()
	}()
	c.hearNode(ctx, channel)
	c.options.Do(ctx, func() { c.nodeGone(channel) })
}

// What follows from a message of an instance costs PID 1 and the journal: this is how often it may change what it serves. A
// program does so a few times as it starts. One that does it more often is heard more slowly.
const (
	changesBurst = 200
	changesEvery = 100 * time.Millisecond
)

// hearNode takes in what a process says until its channel or ctx ends.
func (c *Channels) hearNode(ctx context.Context, channel *conn) {
	changes := pace.Bucket{Burst: changesBurst, Every: changesEvery}
	bad := false
	for {
		m, err := channel.next()
		var badLine *nodecluster.BadLineError
		if errors.As(err, &badLine) {
			if !bad { // once: it may be half a line that a shim before has read the beginning of
				c.log.Warn("message of instance not understood, ignoring", "instance", channel.instance, "error", err)
			}
			bad = true
			continue
		}
		if err != nil {
			return
		}
		switch m.Kind {
		case nodecluster.Mail:
			c.passOn(ctx, channel, m)
			continue
		case nodecluster.Ask, nodecluster.Listening, nodecluster.Closed, nodecluster.Leaving, nodecluster.HandleLost:
			if !channel.wait(ctx, &changes) {
				return
			}
		}
		var reply *nodecluster.Reply
		if !c.options.Do(ctx, func() { reply = c.nodeSaid(channel, m) }) {
			return
		}
		if reply != nil && !channel.Send(*reply) {
			return
		}
	}
}

// wait returns when it may happen once more; false if the channel or ctx ends before.
func (c *conn) wait(ctx context.Context, b *pace.Bucket) bool {
	for !b.Take(time.Now()) {
		select {
		case <-time.After(b.Wait(time.Now())):
		case <-c.Closed():
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// nodeSaid takes in a message and returns the reply, nil for none.
func (c *Channels) nodeSaid(channel *conn, m nodecluster.Message) *nodecluster.Reply {
	in := c.instances[channel.instance]
	if in == nil || in.program == nil || in.program.channel != channel {
		return nil // another process has the number now, and this one ends
	}
	n := in.program
	switch {
	case m.Kind == nodecluster.HandleSent:
		reply := nodecluster.AckHandle()
		return &reply
	case c.options.Messages:
		return nil // it has nothing to ask for
	case m.Kind == nodecluster.Report:
		n.report = m
		n.preloaded = true
	case m.Kind == nodecluster.Ready && !n.ready:
		n.ready = true
		c.nodesChanged(in)
	case c.receives():
		return c.workerSaid(in, m)
	}
	return nil
}

// nodeGone notes that a process's channel has ended. PID 1's duplicate goes too, so that a process that is given connections ends
// if it is the channel that failed. Others go on without messages.
func (c *Channels) nodeGone(channel *conn) {
	number := channel.instance
	in := c.instances[number]
	if in == nil || in.program == nil || in.program.channel != channel {
		return
	}
	in.program.gone = true
	c.removeChannel(number)
	for d := range c.drains {
		if d.instance == number && (c.receives() || !d.closing.IsZero() && c.settings.ShutdownMessage) {
			d.over = true
		}
	}
	if !c.receives() {
		in.program = nil
		return
	}
	in.program.worker = nodecluster.Worker{}
	channel.delivery.End()
	c.nodesChanged(in)
	c.forgetNode(in)
}

// dropNode ends the channel of an instance that is dropped.
func (c *Channels) dropNode(in *instance) {
	if !in.reachable() {
		return
	}
	c.removeChannel(in.number)
	in.program.channel.Close()
	if c.receives() {
		in.program.channel.delivery.End()
	}
}

// forgetNode drops what is known of a process that is gone once PID 1 says so too: the next one of the instance may be of
// another kind.
func (c *Channels) forgetNode(in *instance) {
	if in.program != nil && in.program.gone && (in.state == balance.Down || in.state == balance.Starting) {
		in.program = nil
	}
}

// nodesChanged follows up on a change of an instance's process.
func (c *Channels) nodesChanged(in *instance) {
	c.serving(in)
	c.saveNodes()
	c.Announce()
}

// Announce wakes who waits for Changed.
func (c *Channels) Announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Changed is closed at the next change of what a program serves or has said.
func (c *Channels) Changed() <-chan struct{} { return c.changed }

// duplicate returns a duplicate of a listener that does not block.
func duplicate(fd int) (int, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(dup, true); err != nil {
		unix.Close(dup)
		return -1, os.NewSyscallError("fcntl", err)
	}
	return dup, nil
}

// removeChannel takes the channel of an instance out of the FD store.
func (c *Channels) removeChannel(number int) {
	if err := c.store.Remove(channelStoreName(number)); err != nil {
		c.log.Warn("remove stored channel, ignoring", "instance", number, "error", err)
	}
}

func channelStoreName(number int) string { return storedChannel + strconv.Itoa(number) }
