package handoff_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/handoff/tally"
	"github.com/unitgen/unitgen/internal/handoff/wire"
)

// An instance counts where the balancer looks, and wakes it only if it is asked to.
func TestTellsWhenAsked(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	in := newInstance(t, f, 1)
	in.serve(t)
	channel := in.dial(t)
	defer unix.Close(channel)
	shared, fd, err := tally.New()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	defer shared.Close()
	say(t, channel, wire.Message{Kind: wire.Listeners, Count: 1}, f.fd, fd)
	first, client := f.connect(t), f.connect(t)
	say(t, channel, wire.Message{Kind: wire.Take, Count: 2})
	first.ask(t)
	client.ask(t)
	if c, accepting, used := shared.Look(); c.Answered != 2 || accepting || !used {
		t.Errorf("the tally has %v, accepting is %t, used %t", c, accepting, used)
	}
	if _, _, err := unix.Recvfrom(channel, make([]byte, wire.MaxSize), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("it told what nobody waits for (%v)", err)
	}
	first.Close()
	f.await(t, func() bool { c, _, _ := shared.Look(); return c.Closed == 1 }) // and is not told
	shared.Tell(true)
	client.Close()
	poll := []unix.PollFd{{Fd: int32(channel), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, int(limit.Milliseconds())); n != 1 || err != nil {
		t.Fatalf("it does not tell: %d, %v", n, err)
	}
	buf := make([]byte, wire.MaxSize)
	n, err := unix.Read(channel, buf)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := wire.FromInstance(buf[:n]); err != nil || m.Report.Closed != 2 {
		t.Errorf("it told %v, %v", m, err)
	}
}

// An instance that has accepted a connection and not counted it yet hides that another waits: the balancer has it tell then.
func TestLooksAgainWhileOneIsAccepted(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	if err := f.Attach(1, pair[0]); err != nil {
		t.Fatal(err)
	}
	shared, token := tallyFrom(t, pair[1]), askedWith(t, pair[1])
	shared.Count(tally.Counts{})
	state := func(r wire.Report) {
		t.Helper()
		if _, err := unix.Write(pair[1], wire.Append(nil, wire.Message{Kind: wire.State, Token: token, Report: r})); err != nil {
			t.Fatal(err)
		}
	}
	state(wire.Report{Answer: true})
	f.await(t, func() bool { return f.Stat(1).Ready })
	f.SetRing(balance.RoundRobin, []uint16{1})
	f.connect(t)
	takes(t, pair[1])
	shared.Accepting()
	fd, _, err := unix.Accept4(f.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	f.connect(t)
	f.await(t, func() bool { return shared.Count(tally.Counts{}) }) // it wants to be told
	shared.Count(tally.Counts{Answered: 1})
	shared.Accepted()
	token = 0 // which only an answer has
	state(wire.Report{Answered: 1})
	takes(t, pair[1])
}

// takes reads an order to accept one connection.
func takes(t *testing.T, channel int) {
	t.Helper()
	poll := []unix.PollFd{{Fd: int32(channel), Events: unix.POLLIN}}
	if n, err := unix.Poll(poll, int(limit.Milliseconds())); n != 1 || err != nil {
		t.Fatalf("nothing is ordered: %d, %v", n, err)
	}
	buf := make([]byte, wire.MaxSize)
	n, err := unix.Read(channel, buf)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := wire.FromBalancer(buf[:n], 0); err != nil || m.Kind != wire.Take || m.Count != 1 {
		t.Fatalf("the balancer says %+v, %v", m, err)
	}
}

// The balancer closes its copy of a connection that it sees counted: one that was given is not, before it was told of it.
func TestTellsOfAGivenConnectionBeforeItCounts(t *testing.T) {
	const connections = 500
	f := open(t, "tcp", "127.0.0.1:0")
	in := newInstance(t, f, 1)
	in.serve(t)
	channel := in.dial(t)
	defer unix.Close(channel)
	shared, fd, err := tally.New()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	defer shared.Close()
	say(t, channel, wire.Message{Kind: wire.Listeners, Count: 1}, f.fd, fd)
	told := uint64(0)
	buf := make([]byte, wire.MaxSize)
	for i := range uint64(connections) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		say(t, channel, wire.Message{Kind: wire.Give, Count: 1, Peers: make([]wire.Peer, 1)}, pair[0])
		unix.Close(pair[0])
		unix.Close(pair[1])
		for told < i+1 {
			c, _, _ := shared.Look()
			for {
				n, _, err := unix.Recvfrom(channel, buf, unix.MSG_DONTWAIT)
				if err != nil {
					break
				}
				m, err := wire.FromInstance(buf[:n])
				if err != nil {
					t.Fatal(err)
				}
				told = max(told, m.Report.Answered)
			}
			if c.Answered > told {
				t.Fatalf("%d connections are counted, and it has told of %d", c.Answered, told)
			}
		}
	}
}

// What an instance was just accepting when its program closed the listener is its own: it answers after it has said that it
// takes no more.
func TestAnswersWhenItHasClosed(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	if err := f.Attach(1, pair[0]); err != nil {
		t.Fatal(err)
	}
	tallyFrom(t, pair[1])
	token := askedWith(t, pair[1])
	state := func(r wire.Report) {
		t.Helper()
		if _, err := unix.Write(pair[1], wire.Append(nil, wire.Message{Kind: wire.State, Token: token, Report: r})); err != nil {
			t.Fatal(err)
		}
		token = 0
	}
	state(wire.Report{Answer: true})
	f.await(t, func() bool { return f.Stat(1).Ready })
	f.SetRing(balance.RoundRobin, []uint16{1})
	f.connect(t)
	takes(t, pair[1])
	state(wire.Report{Closing: true})
	state(wire.Report{Closing: true, Answered: 1})
	f.await(t, func() bool { return f.Stat(1).Open == 1 })
}

// say sends a message as a balancer would.
func say(t *testing.T, channel int, m wire.Message, fds ...int) {
	t.Helper()
	if err := unix.Sendmsg(channel, wire.Append(nil, m), unix.UnixRights(fds...), nil, 0); err != nil {
		t.Fatal(err)
	}
}

// tallyFrom reads a balancer's first message, and returns the tally in it.
func tallyFrom(t *testing.T, channel int) *tally.Tally {
	t.Helper()
	buf, oob := make([]byte, wire.MaxSize), make([]byte, 256)
	n, oobn, _, _, err := unix.Recvmsg(channel, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%d control messages: %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		defer unix.Close(fd)
	}
	m, err := wire.FromBalancer(buf[:n], len(fds))
	if err != nil || m.Kind != wire.Listeners || len(fds) != m.Count+1 {
		t.Fatalf("first message is %v with %d descriptors: %v", m, len(fds), err)
	}
	shared, err := tally.Map(fds[m.Count])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shared.Close)
	return shared
}
