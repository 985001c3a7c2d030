package sockdiag

import (
	"math"
	"time"
)

// DefaultQuiet is how long nothing may have moved on a quiet connection: longer than a pause within
// an answer or a retransmission on a good path, short beside any drain time-out.
const DefaultQuiet = time.Second

// Stat counts connections. Each open connection is exactly one of queued, busy, unsure and quiet.
//
// The kernel knows when bytes last went each way, not what they mean. For protocols with one
// request at a time on a connection (HTTP/1, most database protocols) quiet means: answered, and
// idle since. For others it is a guess. With requests in parallel (HTTP/2, pipelining) one may be
// waiting behind the answer to another. A stream may pause for longer than Filter.Quiet. A client
// that only sends (or answered a ping last) stays busy for ever. So end a wait when connections are
// quiet or at a time-out, and then stop the instance in its orderly way, never by SIGKILL.
//
// A connection becomes quiet by time alone, without an event: a drain must count again after
// Filter.Quiet.
type Stat struct {
	// Open are the connections that an instance holds or is about to: states ESTABLISHED and
	// CLOSE_WAIT.
	Open int
	// Queued are not accepted yet; they wait in the listener's queue and are lost if it closes.
	Queued int
	// Busy are accepted, and bytes moved lately, or bytes are unread, unsent or unacknowledged, or
	// bytes came in after the last that went out: a request waits for its answer.
	Busy int
	// Unsure are not busy, unless a request came in the same tick of the kernel's clock (CONFIG_HZ:
	// 1 to 10 ms) in which the answer before it went out. A client that asks again at once on a
	// fast path looks so, and so does a request that was answered within the tick. They become
	// quiet when that request would be unsureNext old, or unsureFirst if only one segment ever
	// came.
	Unsure int
	// Waiting is the longest time that nothing went out on an accepted connection whose client
	// waits for an answer: a drain that has lasted for longer has seen every request answered that
	// was in flight when it began, however often clients have asked since. Never is for a
	// connection that nothing ever went out on.
	Waiting time.Duration
}

// Never is a Stat.Waiting that no drain outlasts.
const Never = time.Duration(math.MaxInt64)

// How long to assume a request that may exist (Stat.Unsure). The first request of a connection is
// unsure only if the program sent data before the client did, and the client asked within the tick.
const (
	unsureNext  = 10 * time.Second
	unsureFirst = 3 * time.Second
)

// Quiet is the number of accepted connections with nothing to do: all was answered, or nothing was
// ever asked.
func (s Stat) Quiet() int { return s.Open - s.Queued - s.Busy - s.Unsure }

// Plus returns the connections of both.
func (s Stat) Plus(o Stat) Stat {
	return Stat{
		Open: s.Open + o.Open, Queued: s.Queued + o.Queued, Busy: s.Busy + o.Busy, Unsure: s.Unsure + o.Unsure,
		Waiting: max(s.Waiting, o.Waiting),
	}
}

// delayedAck is the longest that a peer may hold back its acknowledgement (RFC 9293 section
// 3.8.6.3).
const delayedAck = 500 * time.Millisecond

func (f *Filter) quiet() time.Duration {
	if f.Quiet == 0 {
		return DefaultQuiet
	}
	return f.Quiet
}

func (s *Stat) add(c *socket, quiet time.Duration) {
	s.Open++
	switch {
	case c.inode == 0:
		// In these states only a connection that no accept(2) has returned is without a struct
		// socket.
		s.Queued++
		return
	case c.pending():
		s.Busy++
	default:
		switch c.info.activity(quiet) {
		case busy:
			s.Busy++
		case unsure:
			s.Unsure++
		}
	}
	s.Waiting = max(s.Waiting, c.waiting())
}

// pending reports whether bytes wait on either side, or may wait.
func (c *socket) pending() bool {
	unread := c.rqueue
	if c.state == stateCloseWait && unread > 0 {
		unread-- // the client's FIN counts as one until read(2) has returned 0
	}
	return !c.hasInfo || unread > 0 || c.wqueue > 0
}

// waiting is for how long a request may have waited, at most; zero where none does.
func (c *socket) waiting() time.Duration {
	switch i := c.info; {
	case !c.hasInfo:
		return Never
	case i.segsIn == 0 || i.segsOut > 0 && i.sinceSent <= i.sinceRecv:
		return 0
	case i.segsOut == 0:
		return Never
	default:
		return i.sinceSent
	}
}

type activity int

const (
	idle activity = iota
	busy
	unsure
)

func (i *info) activity(quiet time.Duration) activity {
	switch {
	case min(i.sinceSent, i.sinceRecv) < quiet:
		return busy // a connection that never carried a byte was opened just now: its request is on the way
	case i.segsIn == 0:
		return idle
	case i.segsOut == 0, i.sinceRecv < i.sinceSent:
		return busy
	case i.sinceSent < i.sinceRecv:
		return idle
	}
	// Received and sent in the same tick. An answer is acknowledged by its own segment when the
	// client has nothing more to ask, up to delayedAck later; a next request would carry the
	// acknowledgement, and come with it. Later than that it is the answer to a keep-alive probe.
	if late := i.sinceRecv - i.sinceAck; late > 0 && late <= delayedAck {
		return idle
	}
	if i.sinceRecv >= unsureNext || i.segsIn == 1 && i.sinceRecv >= unsureFirst {
		return idle
	}
	return unsure
}
