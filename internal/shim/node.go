package shim

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

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/internal/pace"
	"github.com/unitgen/unitgen/internal/sdlog"
)

// maxStrangers bounds the processes at a time whose unit is being asked for: everybody on the host may connect to the
// channel socket. Further ones wait in its backlog.
const maxStrangers = 64

// nodes is what the shim keeps of Node.js instances as a whole.
type nodes struct {
	listener  *net.UnixListener // of app-channel.socket; nil where the app is of another kind
	strangers *slog.Logger
	tickets   nodecluster.Tickets // on the handoff path
	keys      []byte              // of session tickets, on the steer path; nil before a process is there
	changed   chan struct{}       // closed and replaced when a process attaches, listens, closes or ends
	asked     int                 // the token of the latest drain's reports
	saved     int                 // how often the state was saved
	savedLast []byte              // the state that was saved last
}

func newNodes(listener *net.UnixListener, log *slog.Logger) nodes {
	return nodes{listener: listener, strangers: sdlog.Limited(log), tickets: make(nodecluster.Tickets), changed: make(chan struct{})}
}

// node is the process of an instance that has a channel, until the end of that: one of Node.js, unless Options.Messages.
type node struct {
	channel *nodeChannel
	ready   bool // it has sent "ready"
	gone    bool // the channel has ended; on the handoff path the process ends too
	// slow is until when nobody waits for it to read its messages; a time that is past if it reads them.
	slow time.Time

	// preloaded says that drain.cjs is in the process. Its latest report is asked for while the instance drains. On the handoff
	// path the dispatcher gets it.
	preloaded bool
	report    nodecluster.Message

	// On the handoff path: what it serves.
	worker  nodecluster.Worker
	unknown bool // adopted without what the shim before knew of it: PID 1's word on its state is all there is
}

// reachable says whether its process can be sent messages.
func (in *instance) reachable() bool { return in.node != nil && !in.node.gone }

// attached says whether the instance's process is one of Node.js that has a channel.
func (s *Shim) attached(in *instance) bool { return in.reachable() && !s.options.Messages }

// serves says whether an instance takes connections if PID 1 calls it up: one that is handed its connections when it asks for
// them, any other always.
func (s *Shim) serves(in *instance) bool {
	return !s.handsOff() || s.handoff.Stat(in.number).Ready
}

func (s *Shim) nodeAddresses() []nodecluster.Address {
	all := make([]nodecluster.Address, len(s.addresses))
	for i, a := range s.addresses {
		all[i] = a.node()
	}
	return all
}

// node is the address in terms of Node's.
func (a *address) node() nodecluster.Address {
	return nodecluster.Address{TCP: a.Address, Path: a.unix}
}

// serveNodes speaks with the Node processes, those adopted and those that come, until ctx ends. It fails when no more can
// come.
func (s *Shim) serveNodes(ctx context.Context, adopted []*nodeChannel) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for _, channel := range adopted {
		sessions.Go(func() { s.converse(ctx, channel) })
	}
	ln := s.nodes.listener
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
			s.nodes.strangers.Warn("channel refused", "error", err)
			conn.Close() // one that is not greeted tries again
			<-strangers
			continue
		}
		sessions.Go(func() {
			channel, err := s.admit(ctx, conn)
			conn.Close()
			<-strangers
			if err != nil {
				s.nodes.strangers.Warn("channel refused", "error", err)
				return
			}
			s.converse(ctx, channel)
		})
	}
}

// admit makes a channel of a connection if an instance's main process has made it. It greets the peer or tells it why
// not. The connection stays the caller's: the channel has a duplicate.
func (s *Shim) admit(ctx context.Context, conn *net.UnixConn) (*nodeChannel, error) {
	number, err := s.whoIs(ctx, conn)
	var refused *stranger
	if err != nil && !errors.As(err, &refused) {
		return nil, err // a peer that is not greeted tries again
	}
	if err != nil {
		// No more than that: the peer may be anybody.
		return nil, errors.Join(err, nodecluster.Greet(conn, nodecluster.Greeting{Error: "only an instance's main process may connect"}))
	}
	channel, err := s.channelOf(conn, number)
	if err == nil {
		if err = s.run1(ctx, func() error { return s.attachNode(channel) }); err != nil {
			channel.Close()
		}
	}
	if err != nil {
		return nil, errors.Join(err, nodecluster.Greet(conn, nodecluster.Greeting{Error: err.Error()}))
	}
	if err := nodecluster.Greet(conn, nodecluster.Greeting{Instance: number}); err != nil {
		s.do(ctx, func() { s.nodeGone(channel) })
		channel.Close()
		return nil, err
	}
	return channel, nil
}

func (s *Shim) channelOf(conn *net.UnixConn, number int) (*nodeChannel, error) {
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
	return s.newNodeChannel(number, channel), nil
}

// attachNode makes channel that of its instance and puts a duplicate into the FD store: should the shim die, the process does not
// see its channel end.
func (s *Shim) attachNode(channel *nodeChannel) error {
	number := channel.instance
	in := s.instances[number]
	if in == nil {
		return fmt.Errorf("instance %d has not joined", number)
	}
	if in.reachable() {
		in.node.channel.Close()
	}
	s.removeChannel(number)
	if err := channel.Descriptor(func(fd int) error { return s.notify.StoreFiles(channelStoreName(number), fd) }); err != nil {
		return err
	}
	if s.receives() {
		if err := s.handoff.AttachReceiver(number, channel, true); err != nil {
			s.removeChannel(number)
			return err
		}
	}
	in.node, in.refused = &node{channel: channel}, ""
	s.askPreload(in.node)
	s.shareTickets(in.node)
	s.nodesChanged(in)
	return nil
}

// ticketKeysSize is of tls.Server.setTicketKeys.
const ticketKeysSize = 48

// shareTickets gives a process the keys of session tickets that all processes of the app have, so that a client of TLS resumes its
// session with whichever it comes to. On the handoff path they come with the answer to listen().
func (s *Shim) shareTickets(n *node) {
	if s.handsOff() || s.options.Messages {
		return
	}
	if s.nodes.keys == nil {
		s.nodes.keys = make([]byte, ticketKeysSize)
		rand.Read(s.nodes.keys) // never fails
	}
	n.channel.Order(nodecluster.UseTickets(s.nodes.keys))
}

// converse hears what a process says until its channel or ctx ends. It owns the channel.
func (s *Shim) converse(ctx context.Context, channel *nodeChannel) {
	number := channel.instance
	stop := context.AfterFunc(ctx, func() { channel.Close() })
	defer stop()
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := channel.Write(done); err != nil && ctx.Err() == nil {
			s.log.Warn("channel fails, its process ends", "instance", number, "error", err)
			channel.Close()
		}
	})
	carrying, stopCarrying := context.WithCancel(ctx)
	writer.Go(func() {
		if err := channel.Carry(carrying); err != nil {
			s.log.Warn("messages to program cannot be sent", "instance", number, "error", err)
		}
	})
	defer func() {
		close(done)
		stopCarrying()
		channel.Close()
		writer.Wait()
	}()
	s.hearNode(ctx, channel)
	s.do(ctx, func() { s.nodeGone(channel) })
}

// What follows from a message of an instance costs PID 1 and the journal: this is how often it may change what it serves. A
// program does so a few times as it starts. One that does it more often is heard more slowly.
const (
	changesBurst = 200
	changesEvery = 100 * time.Millisecond
)

// hearNode takes in what a process says until its channel or ctx ends.
func (s *Shim) hearNode(ctx context.Context, channel *nodeChannel) {
	changes := pace.Bucket{Burst: changesBurst, Every: changesEvery}
	bad := false
	for {
		m, err := channel.next()
		var badLine *nodecluster.BadLineError
		if errors.As(err, &badLine) {
			if !bad { // once: it may be half a line that a shim before has read the beginning of
				s.log.Warn("message of instance not understood, ignoring", "instance", channel.instance, "error", err)
			}
			bad = true
			continue
		}
		if err != nil {
			return
		}
		switch m.Kind {
		case nodecluster.Mail:
			s.passOn(ctx, channel, m)
			continue
		case nodecluster.Ask, nodecluster.Listening, nodecluster.Closed, nodecluster.Leaving, nodecluster.HandleLost:
			if !channel.wait(ctx, &changes) {
				return
			}
		}
		var reply *nodecluster.Reply
		if !s.do(ctx, func() { reply = s.nodeSaid(channel, m) }) {
			return
		}
		if reply != nil && !channel.Send(*reply) {
			return
		}
	}
}

// wait returns when it may happen once more; false if the channel or ctx ends before.
func (c *nodeChannel) wait(ctx context.Context, b *pace.Bucket) bool {
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
func (s *Shim) nodeSaid(channel *nodeChannel, m nodecluster.Message) *nodecluster.Reply {
	in := s.instances[channel.instance]
	if in == nil || in.node == nil || in.node.channel != channel {
		return nil // another process has the number now, and this one ends
	}
	n := in.node
	switch {
	case m.Kind == nodecluster.HandleSent:
		reply := nodecluster.AckHandle()
		return &reply
	case s.options.Messages:
		return nil // it has nothing to ask for
	case m.Kind == nodecluster.Report:
		n.report = m
		n.preloaded = true
	case m.Kind == nodecluster.Ready && !n.ready:
		n.ready = true
		s.nodesChanged(in)
	case s.receives():
		return s.workerSaid(in, m)
	}
	return nil
}

// nodeGone notes that a process's channel has ended. PID 1's duplicate goes too, so that a process that is given connections ends
// if it is the channel that failed. Others go on without messages.
func (s *Shim) nodeGone(channel *nodeChannel) {
	number := channel.instance
	in := s.instances[number]
	if in == nil || in.node == nil || in.node.channel != channel {
		return
	}
	in.node.gone = true
	s.removeChannel(number)
	for d := range s.drains {
		if d.Instance == number && (s.receives() || !d.closing.IsZero() && s.options.ShutdownMessage) {
			s.endDrain(d, control.Drained{})
		}
	}
	if !s.receives() {
		in.node = nil
		return
	}
	in.node.worker = nodecluster.Worker{}
	s.handoff.Detach(number)
	s.nodesChanged(in)
	s.forgetNode(in)
}

// dropNode ends the channel of an instance that is dropped.
func (s *Shim) dropNode(in *instance) {
	if !in.reachable() {
		return
	}
	s.removeChannel(in.number)
	in.node.channel.Close()
	if s.receives() {
		s.handoff.Detach(in.number)
	}
}

// forgetNode drops what is known of a process that is gone once PID 1 says so too: the next one of the instance may be of
// another kind.
func (s *Shim) forgetNode(in *instance) {
	state := in.state()
	if in.node != nil && in.node.gone && (state == balance.Down || state == balance.Starting) {
		in.node = nil
	}
}

// nodesChanged follows up on a change of an instance's process.
func (s *Shim) nodesChanged(in *instance) {
	s.serving(in)
	s.move(in)
	s.saveNodes()
	close(s.nodes.changed)
	s.nodes.changed = make(chan struct{})
}

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
func (s *Shim) removeChannel(number int) {
	if err := s.notify.RemoveStored(channelStoreName(number)); err != nil {
		s.log.Warn("remove stored channel, ignoring", "instance", number, "error", err)
	}
}

func channelStoreName(number int) string { return storedChannel + strconv.Itoa(number) }
