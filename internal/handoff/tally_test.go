package handoff_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

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
