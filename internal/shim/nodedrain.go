package shim

import (
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/nodecluster"
)

// letGoFor is how long a Node process that has open connections keeps its idle ones: a client that uses one within that
// time is told to close it with its answer. Those that are left are closed from the process's side, which a client may
// meet while it sends a request.
const letGoFor = time.Second

// closeAfter is over how long the connections that a process has left at the end of a drain are closed, and closeFor how long that
// is waited for: Node before 19 leaves those that are kept alive to its keepAliveTimeout, 5 s by default, when a server closes.
const (
	closeAfter = 5 * time.Second
	closeFor   = 6 * time.Second
)

// lastPart is the end of a drain time-out in which connections that never end are closed one after another, so that their
// clients do not all come back at once.
func (s *Shim) lastPart() time.Duration { return min(s.options.DrainTimeout/5, closeAfter) }

// traffic is what is known of the connections of an instance that drains.
type traffic struct {
	open  int
	known bool // they can be counted; else the others are zero
	quiet bool // none has a request under way
}

// drainNode takes a drain of a Node process further. It is off the ring, says "Connection: close" in its answers and has told its
// sessions of HTTP/2 to go away. When nothing is under way any more the drain ends, and the stop signal follows. A program that
// does not handle it would drop all that is left at once: drain.cjs closes these connections before, one after another.
//
// On the handoff path the process is told to close its servers, as the primary of a cluster does, and ends its channel when all its
// connections have ended (nodeGone).
//
// A program that is told by a message has to end by itself: until then it may save what it has, for as long as a drain may
// take.
func (s *Shim) drainNode(d *drainWait, in *instance, t traffic, now time.Time) {
	n := in.node
	if last := s.lastPart(); !d.cutting && !s.options.ShutdownMessage && now.After(d.deadline.Add(-last)) {
		d.cutting = n.channel.Order(nodecluster.CutWithin(last))
	}
	switch {
	case s.handsOff(): // the dispatcher has asked
	case n.preloaded && (n.report.Token < d.token || n.report.Busy > 0):
		t.quiet = false // the kernel does not know that an answer has begun and pauses, nor that it is one of several
	case !t.known:
		// Without counts the process itself says when it is done. What waits at its listeners it must take before.
		queued, err := s.queuedAt(in.number)
		t.quiet = err == nil && queued == 0
	}
	if !d.closing.IsZero() {
		closed := !s.handsOff() && t.known && t.open == 0
		if t.quiet && !s.options.ShutdownMessage && (closed || now.Sub(d.closing) >= closeFor) {
			s.endDrain(d, control.Drained{Open: t.open})
		}
		return
	}
	if !t.quiet || (!t.known || t.open > 0) && now.Sub(d.began) < letGoFor {
		return
	}
	switch {
	case s.options.ShutdownMessage, s.handsOff():
		if !n.channel.Order(s.farewell()) {
			return
		}
	case t.known && t.open == 0, n.report.Stops, !n.preloaded:
		s.endDrain(d, control.Drained{Open: t.open})
		return
	}
	d.closing = now
	if !s.options.ShutdownMessage {
		n.channel.Order(nodecluster.CloseWithin(closeAfter)) // else they end with the process
	}
}

// askNodes has Node processes that drain tell what they have under way. On the handoff path the dispatcher asks.
func (s *Shim) askNodes() {
	for d := range s.drains {
		if in := s.instances[d.Instance]; s.attached(in) {
			s.askPreload(in.node) // without room the next tick does
		}
	}
}

// askPreload has a process report if drain.cjs is in it.
func (s *Shim) askPreload(n *node) {
	if !s.handsOff() && !s.options.Messages {
		n.channel.Order(nodecluster.AskReport(s.nodes.asked))
	}
}

// farewell is what tells a process to end: to close its servers, or what it makes of "shutdown".
func (s *Shim) farewell() nodecluster.Reply {
	if s.options.ShutdownMessage {
		return nodecluster.Shutdown()
	}
	return nodecluster.Disconnect()
}
