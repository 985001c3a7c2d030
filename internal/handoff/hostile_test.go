package handoff_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/handoff/tally"
	"github.com/unitgen/unitgen/internal/handoff/wire"
	"github.com/unitgen/unitgen/internal/sock"
)

// Whoever speaks nonsense, on the channel or in the tally, is handed nothing any more, and harms
// nobody else.
func TestHostileInstance(t *testing.T) {
	message := func(b []byte) func(*played) {
		return func(in *played) {
			if _, err := unix.Write(in.channel, b); err != nil {
				in.t.Fatal(err)
			}
		}
	}
	counts := func(c tally.Counts) func(*played) {
		return func(in *played) { in.tally.Count(c) }
	}
	for name, does := range map[string]func(*played){
		"garbage":              message([]byte("GET / HTTP/1.1\r\n\r\n")),
		"too long":             message(make([]byte, wire.MaxSize+1)),
		"unasked":              message(wire.Append(nil, wire.Message{Kind: wire.State, Report: wire.Report{Answered: 5}})),
		"counts unasked":       counts(tally.Counts{Answered: 5}),
		"counts contradictory": counts(tally.Counts{Closed: 1}),
		"counts overflow":      counts(tally.Counts{Answered: 1 << 63, Missed: 1 << 63, Closed: 1 << 63}),
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, "tcp", "127.0.0.1:0")
			f.start(t, balance.RoundRobin, 1)
			in := play(t, f, 2)
			in.answers()
			does(in)
			f.SetRing(balance.RoundRobin, []uint16{1, 2})
			// The descriptor has hung up: 2 is gone.
			poll := []unix.PollFd{{Fd: int32(in.channel)}}
			if n, err := sock.Poll(poll, limit); n != 1 || err != nil {
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

// An answer to the balancer before is not taken for one's own: orders may come after it.
func TestAnswerToAnEarlierBalancer(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	in := play(t, f, 1)
	in.state(in.token^1, wire.Report{Answered: 3, Answer: true})
	in.state(0, wire.Report{Answered: 5})
	in.state(in.token, wire.Report{Answered: 5, Closed: 1, Answer: true})
	f.await(t, func() bool { st := f.Stat(1); return st.Ready && st.Open == 4 })
}

// An instance bears a balancer that speaks nonsense, and takes the next one.
func TestHostileBalancer(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	in := newInstance(t, f, 1)
	in.serve(t)
	for _, m := range [][]byte{
		[]byte("?"), make([]byte, 5000),
		wire.Append(nil, wire.Message{Kind: wire.Take, Count: 1}),         // of a listener that it has not
		wire.Append(nil, wire.Message{Kind: wire.Listeners, Count: 1}),    // without it
		wire.Append(nil, wire.Message{Kind: wire.State, Listener: 0}),     // its own words
		wire.Append(nil, wire.Message{Kind: wire.Give, Count: 1})[:8],     // nothing given
		wire.Append(nil, wire.Message{Kind: wire.Take, Count: 1_000_000}), // too many
	} {
		fd := in.dial(t)
		if _, err := unix.Write(fd, m); err != nil {
			t.Fatal(err)
		}
		poll := []unix.PollFd{{Fd: int32(fd)}}
		if n, err := sock.Poll(poll, limit); n != 1 || err != nil {
			t.Errorf("channel is open after %q: %d, %v", m, n, err)
		}
		unix.Close(fd)
	}
	if err := f.Attach(1, in.dial(t)); err != nil {
		t.Fatal(err)
	}
	f.SetRing(balance.RoundRobin, []uint16{1})
	f.connect(t).ask(t)
}
