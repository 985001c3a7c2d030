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
	client := f.connect(t)
	say(t, channel, wire.Message{Kind: wire.Take, Count: 1})
	client.ask(t)
	if c, accepting, used := shared.Look(); c.Answered != 1 || accepting || !used {
		t.Errorf("the tally has %v, accepting is %t, used %t", c, accepting, used)
	}
	if _, _, err := unix.Recvfrom(channel, make([]byte, wire.MaxSize), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("it told what nobody waits for (%v)", err)
	}
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
	if m, err := wire.FromInstance(buf[:n]); err != nil || m.Report.Closed != 1 {
		t.Errorf("it told %v, %v", m, err)
	}
}

// say sends a message as a balancer would.
func say(t *testing.T, channel int, m wire.Message, fds ...int) {
	t.Helper()
	if err := unix.Sendmsg(channel, wire.Append(nil, m), unix.UnixRights(fds...), nil, 0); err != nil {
		t.Fatal(err)
	}
}

// An instance whose tally cannot be true is handed nothing any more.
func TestHostileTally(t *testing.T) {
	for name, counts := range map[string]tally.Counts{
		"unasked":       {Answered: 5},
		"contradictory": {Closed: 1},
		"overflow":      {Answered: 1 << 63, Missed: 1 << 63, Closed: 1 << 63},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, "tcp", "127.0.0.1:0")
			f.start(t, balance.RoundRobin, 1)
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(pair[1])
			if err := f.Attach(2, pair[0]); err != nil {
				t.Fatal(err)
			}
			shared := tallyFrom(t, pair[1])
			shared.Count(tally.Counts{})
			hello := wire.Message{Kind: wire.State, Token: askedWith(t, pair[1]), Report: wire.Report{Answer: true}}
			if _, err := unix.Write(pair[1], wire.Append(nil, hello)); err != nil {
				t.Fatal(err)
			}
			f.await(t, func() bool { return f.Stat(2).Ready })
			shared.Count(counts)
			f.SetRing(balance.RoundRobin, []uint16{1, 2})
			poll := []unix.PollFd{{Fd: int32(pair[1])}}
			if n, err := unix.Poll(poll, int(limit.Milliseconds())); n != 1 || err != nil {
				t.Fatalf("channel is open: %d, %v", n, err)
			}
			for range 4 {
				if id, _ := f.connect(t).ask(t); id != 1 {
					t.Errorf("instance %d has answered", id)
				}
			}
		})
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
