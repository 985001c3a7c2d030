package handoff_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/handoff/tally"
	"github.com/unitgen/unitgen/internal/handoff/wire"
	"github.com/unitgen/unitgen/internal/sock"
)

// played is an instance that the test plays, message by message.
type played struct {
	t       *testing.T
	f       *front
	id      int
	channel int
	token   int // with which it was asked what it has
	tally   *tally.Tally
}

// play attaches an instance, which has not answered yet.
func play(t *testing.T, f *front, id int) *played {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[1]) })
	if err := f.Attach(id, pair[0]); err != nil {
		t.Fatal(err)
	}
	in := &played{t: t, f: f, id: id, channel: pair[1]}
	m, fds := in.hear()
	for _, fd := range fds {
		defer unix.Close(fd)
	}
	if m.Kind != wire.Listeners || len(fds) != m.Count+1 {
		t.Fatalf("first message is %v with %d descriptors", m, len(fds))
	}
	if in.tally, err = tally.Map(fds[m.Count]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.tally.Close)
	if m, _ = in.hear(); m.Kind != wire.Ask {
		t.Fatalf("second message is %v", m)
	}
	in.token = m.Token
	return in
}

// hear reads what the balancer says, and the descriptors that come along.
func (in *played) hear() (wire.Message, []int) {
	in.t.Helper()
	poll := []unix.PollFd{{Fd: int32(in.channel), Events: unix.POLLIN}}
	if n, err := sock.Poll(poll, limit); n != 1 || err != nil {
		in.t.Fatalf("the balancer says nothing: %d, %v", n, err)
	}
	buf, oob := make([]byte, wire.MaxSize), make([]byte, 256)
	n, oobn, _, _, err := unix.Recvmsg(in.channel, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		in.t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		in.t.Fatal(err)
	}
	var fds []int
	for _, m := range messages {
		if fds, err = unix.ParseUnixRights(&m); err != nil {
			in.t.Fatal(err)
		}
	}
	m, err := wire.FromBalancer(buf[:n], len(fds))
	if err != nil {
		in.t.Fatal(err)
	}
	return m, fds
}

// silent says whether the balancer says nothing.
func (in *played) silent() bool {
	poll := []unix.PollFd{{Fd: int32(in.channel), Events: unix.POLLIN}}
	n, err := sock.Poll(poll, 0)
	return n == 0 && err == nil
}

// accept accepts a connection and counts it, the n-th of its.
func (in *played) accept(n uint64) {
	in.tally.Accepting()
	fd, _, err := unix.Accept4(in.f.fd, unix.SOCK_CLOEXEC)
	if err != nil {
		in.t.Error(err)
	}
	unix.Close(fd)
	in.tally.Count(tally.Counts{Answered: n, Closed: n})
	in.tally.Accepted()
}

// takes hears an order to accept one connection.
func (in *played) takes() {
	in.t.Helper()
	if m, _ := in.hear(); m.Kind != wire.Take || m.Count != 1 {
		in.t.Fatalf("the balancer says %+v", m)
	}
}

// state tells what it has.
func (in *played) state(token int, r wire.Report) {
	in.t.Helper()
	if _, err := unix.Write(in.channel, wire.Append(nil, wire.Message{Kind: wire.State, Token: token, Report: r})); err != nil {
		in.t.Fatal(err)
	}
}

// answers tells for the first time, that it has nothing.
func (in *played) answers() {
	in.t.Helper()
	in.state(in.token, wire.Report{Answer: true})
	in.f.await(in.t, func() bool { return in.f.Stat(in.id).Ready })
}

// serves has the instance on the ring.
func (in *played) serves() {
	in.t.Helper()
	in.answers()
	in.f.SetRing(balance.RoundRobin, []uint16{uint16(in.id)})
}
