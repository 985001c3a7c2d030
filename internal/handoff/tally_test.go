package handoff_test

import (
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/handoff/tally"
	"github.com/unitgen/unitgen/internal/handoff/wire"
	"github.com/unitgen/unitgen/internal/sock"
)

// An instance counts where the balancer looks, and wakes it only if it is asked to.
func TestTellsWhenAsked(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	channel, shared := balances(t, f)
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
	if n, err := sock.Poll(poll, limit); n != 1 || err != nil {
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

// An instance that has accepted a connection and not counted it yet hides that another waits: the
// balancer has it tell then.
func TestLooksAgainWhileOneIsAccepted(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	in := play(t, f, 1)
	in.tally.Count(tally.Counts{})
	in.serves()
	f.connect(t)
	in.takes()
	in.tally.Accepting()
	fd, _, err := unix.Accept4(f.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	f.connect(t)
	f.await(t, func() bool { return in.tally.Count(tally.Counts{}) }) // it wants to be told
	in.tally.Count(tally.Counts{Answered: 1})
	in.tally.Accepted()
	in.state(0, wire.Report{Answered: 1})
	in.takes()
}

// An instance that accepts and counts a connection while the balancer looks who waits is not taken
// for one that has yet to: there would be an order too many, and the next connection would not go
// to the one whose turn it is.
func TestCountsAgainWhatWasAccepted(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	defer f.stop() // which calls accepts
	first, second := play(t, f, 1), play(t, f, 2)
	first.tally.Count(tally.Counts{})
	second.tally.Count(tally.Counts{})
	first.answers()
	second.answers()
	f.SetRing(balance.RoundRobin, []uint16{1, 2})
	f.connect(t)
	first.takes()
	accepts := sync.OnceFunc(func() { first.accept(1) })
	f.counted.Store(&accepts)
	f.connect(t)
	second.takes()
	if !first.silent() {
		t.Error("another connection is ordered than the two that came")
	}
}

// The balancer closes its copy of a connection that it sees counted: one that was given is not,
// before it was told of it.
func TestTellsOfAGivenConnectionBeforeItCounts(t *testing.T) {
	const connections = 500
	f := open(t, "tcp", "127.0.0.1:0")
	channel, shared := balances(t, f)
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

// What an instance was just accepting when its program closed the listener is its own: it answers
// after it has said that it takes no more.
func TestAnswersWhenItHasClosed(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	in := play(t, f, 1)
	in.serves()
	f.connect(t)
	in.takes()
	in.state(0, wire.Report{Closing: true})
	in.state(0, wire.Report{Closing: true, Answered: 1})
	f.await(t, func() bool { return f.Stat(1).Open == 1 })
}

// balances starts an instance whose balancer the test plays, which has sent the listeners and the
// tally.
func balances(t *testing.T, f *front) (channel int, shared *tally.Tally) {
	t.Helper()
	in := newInstance(t, f, 1)
	in.serve(t)
	channel = in.dial(t)
	t.Cleanup(func() { unix.Close(channel) })
	shared, fd, err := tally.New()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	t.Cleanup(shared.Close)
	say(t, channel, wire.Message{Kind: wire.Listeners, Count: 1}, f.fd, fd)
	return channel, shared
}

// say sends a message as a balancer would.
func say(t *testing.T, channel int, m wire.Message, fds ...int) {
	t.Helper()
	if err := unix.Sendmsg(channel, wire.Append(nil, m), unix.UnixRights(fds...), nil, 0); err != nil {
		t.Fatal(err)
	}
}
