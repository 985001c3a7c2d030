package shim

import (
	"context"
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
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/internal/pace"
	"github.com/unitgen/unitgen/internal/sdlog"
	"github.com/unitgen/unitgen/internal/steer"
)

// maxStrangers bounds the processes at a time whose unit is being asked for: everybody on the host may connect to the
// channel socket. Further ones wait in its backlog.
const maxStrangers = 64

// nodes is what the shim keeps of Node.js instances as a whole.
type nodes struct {
	listener  *net.UnixListener // of app-channel.socket; nil where the app is of another kind
	strangers *slog.Logger
	tickets   nodecluster.Tickets
	changed   chan struct{} // closed and replaced when a process attaches, listens, closes or ends
	saved     int           // how often the state was saved
	savedLast []byte        // the state that was saved last
}

func newNodes(listener *net.UnixListener, log *slog.Logger) nodes {
	return nodes{listener: listener, strangers: sdlog.Limited(log), tickets: make(nodecluster.Tickets), changed: make(chan struct{})}
}

// node is the process of an instance that has a channel, until the end of that: one of Node.js, unless it is for messages
// alone.
type node struct {
	channel *nodeChannel
	worker  nodecluster.Worker
	unknown bool // adopted without what the shim before knew of it: PID 1's word on its state is all there is
	mail    bool // the channel is for messages alone
	gone    bool // the channel has ended, and a Node.js process ends too
	// slow is until when nobody waits for it to read its messages; a time that is past if it reads them.
	slow time.Time
	// requests is how many HTTP requests it has under way by its own word, which is asked for while it drains. On the
	// handoff path it tells that of each connection.
	requests int
}

// attached says whether the instance's process is one of Node.js that has a channel.
func (in *instance) attached() bool { return in.reachable() && !in.node.mail }

// reachable says whether its process can be sent messages.
func (in *instance) reachable() bool { return in.node != nil && !in.node.gone }

// serves says whether an instance takes connections if PID 1 calls it up: a Node process when it listens, one that is
// handed its connections when it asks for them, any other always.
func (s *Shim) serves(in *instance) bool {
	if s.handsOff() {
		return s.handoff.Stat(in.number).Ready
	}
	n := in.node
	if n != nil && n.mail {
		return true
	}
	if n == nil || n.unknown {
		return n == nil || !n.gone
	}
	return !n.gone && !n.worker.Left && len(n.worker.Missing(s.nodeAddresses())) == 0
}

// left says whether an instance has closed its servers, so that nobody will take what waits at its listeners.
func (in *instance) left() bool {
	n := in.node
	return n != nil && !n.mail && !n.unknown && len(n.worker.Servers) == 0 && (n.gone || n.closed())
}

// closed says whether the process had servers and has none any more.
func (n *node) closed() bool { return n.worker.Servers != nil && len(n.worker.Servers) == 0 }

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

// attachNode makes channel that of its instance and puts a duplicate into the FD store: should the shim die, the process
// does not see its channel end.
func (s *Shim) attachNode(channel *nodeChannel) error {
	number := channel.instance
	in := s.instances[number]
	if in == nil {
		return fmt.Errorf("instance %d has not joined", number)
	}
	if in.reachable() {
		in.node.channel.Close()
	}
	if err := s.notify.RemoveStored(channelStoreName(number)); err != nil {
		return err
	}
	if err := channel.Descriptor(func(fd int) error { return s.notify.StoreFiles(channelStoreName(number), fd) }); err != nil {
		return err
	}
	if s.receives() {
		if err := s.handoff.AttachReceiver(number, channel, true); err != nil {
			return errors.Join(err, s.notify.RemoveStored(channelStoreName(number)))
		}
	}
	in.node, in.refused = &node{channel: channel, mail: s.options.Messages}, ""
	s.nodesChanged(in)
	return nil
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
		channel.Discard()
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
	number := channel.instance
	in := s.instances[number]
	if in == nil || in.node == nil || in.node.channel != channel {
		return nil // another process has the number now, and this one ends
	}
	n := in.node
	if n.mail && m.Kind != nodecluster.HandleSent {
		return nil // it has nothing to ask for
	}
	switch m.Kind {
	case nodecluster.HandleSent:
		reply := nodecluster.AckHandle()
		return &reply
	case nodecluster.Ask:
		reply := s.give(in, m)
		s.nodesChanged(in)
		return &reply
	case nodecluster.Listening:
		if address, ok := n.worker.Listens(m.Asked); ok {
			s.listens(in, address)
		}
	case nodecluster.Closed:
		if address, ok := n.worker.Close(m.Key); ok && in.draining == 0 {
			in.said.Info("program has closed its server", "address", address.String())
		}
	case nodecluster.Leaving:
		n.worker.Left = true
		s.nodesChanged(in)
		reply := nodecluster.Acknowledge(m)
		return &reply
	case nodecluster.Ready:
		if n.worker.Ready {
			return nil
		}
		n.worker.Ready = true
	case nodecluster.Report:
		n.requests = m.Busy
		return nil
	case nodecluster.HandleLost:
		in.said.Error("program could not receive its listener, has it too many open files?")
	default:
		return nil
	}
	s.nodesChanged(in)
	return nil
}

// give answers a call of listen().
func (s *Shim) give(in *instance, m nodecluster.Message) nodecluster.Reply {
	n := in.node
	key, address, err := n.worker.Give(m.Asked, s.nodeAddresses(), s.options.ProgramPort)
	var refusal *nodecluster.Refusal
	if errors.As(err, &refusal) {
		in.refused = refusal.Reason
		in.said.Warn("program may not listen: " + refusal.Reason)
		return nodecluster.Refuse(m, refusal.Errno, m.Data)
	}
	data := s.nodes.tickets.Share(address, m.Data)
	if s.handsOff() {
		return nodecluster.Promise(m, key, data, address)
	}
	l := in.listenerAt(address)
	fd, err := duplicate(l.fd)
	if err != nil {
		n.worker.Withdraw(key)
		in.said.Error("give listener, ignoring", "error", err)
		return nodecluster.Refuse(m, unix.EMFILE, m.Data)
	}
	if _, backlog, err := steer.Queue(l.fd); err == nil {
		l.backlog = backlog
	}
	return nodecluster.Give(m, key, data, fd)
}

// listens notes that an instance listens at an address. Node has called listen(2) anew with a backlog of its own, 511 by
// default: the one of the socket unit is put back.
func (s *Shim) listens(in *instance, address nodecluster.Address) {
	in.refused = ""
	l := in.listenerAt(address)
	if l == nil || l.backlog == 0 {
		return
	}
	if err := unix.Listen(l.fd, l.backlog); err != nil {
		in.said.Warn("restore backlog, ignoring", "error", os.NewSyscallError("listen", err))
	}
}

// nodeGone notes that a process's channel has ended. PID 1's duplicate goes too, so that the process ends if it is the
// channel that failed.
func (s *Shim) nodeGone(channel *nodeChannel) {
	number := channel.instance
	in := s.instances[number]
	if in == nil || in.node == nil || in.node.channel != channel {
		return
	}
	in.node.gone = true
	in.node.worker = nodecluster.Worker{}
	if err := s.notify.RemoveStored(channelStoreName(number)); err != nil {
		s.log.Warn("remove stored channel, ignoring", "instance", number, "error", err)
	}
	if in.node.mail {
		in.node = nil
		return
	}
	if s.receives() {
		s.handoff.Detach(number)
	}
	s.nodesChanged(in)
	for d := range s.drains {
		if d.Instance == number {
			s.endDrain(d, drained{})
		}
	}
	s.forgetNode(in)
}

// dropNode ends the channel of an instance that is dropped.
func (s *Shim) dropNode(in *instance) {
	if !in.reachable() {
		return
	}
	if err := s.notify.RemoveStored(channelStoreName(in.number)); err != nil {
		s.log.Warn("remove stored channel, ignoring", "instance", in.number, "error", err)
	}
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

func (in *instance) listenerAt(address nodecluster.Address) *listener {
	for a, l := range in.listeners {
		if a.node() == address {
			return l
		}
	}
	return nil
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

func channelStoreName(number int) string { return storedChannel + strconv.Itoa(number) }
