package shim

import (
	"time"

	"github.com/unitgen/unitgen/internal/nodecluster"
)

// letGoFor is how long a Node process that has open connections keeps its idle ones: a client that uses one within that
// time is told to close it with its answer. Those that are left are closed from the process's side, which a client may
// meet while it sends a request.
const letGoFor = time.Second

// closeFor is how long a process may take to end its idle connections after it has closed its servers: Node before 19
// leaves them to its keepAliveTimeout, 5 s by default.
const closeFor = 6 * time.Second

// closeAfter is over how long the connections are spread that a process has left when it has closed its servers; it must end
// before closeFor.
const closeAfter = 5 * time.Second

// lastPart is the end of a drain time-out in which connections that never end are closed one after another, so that their
// clients do not all come back at once.
func (s *Shim) lastPart() time.Duration { return min(s.options.DrainTimeout/5, closeAfter) }

// traffic is what is known of the connections of an instance that drains.
type traffic struct {
	open  int
	known bool // they can be counted; else the others are zero
	quiet bool // none has a request under way
}

// drainNode takes a drain of a Node process further. It is off the ring and says "Connection: close" in its answers; when
// no request is on its way any more it is told to close its servers, and ends its channel when all its connections have
// ended (nodeGone). Connections that are open but silent, such as idle WebSockets, do not hold it: as with other
// programs they end with the process.
//
// A program that is told by a message has to end by itself: until then it may save what it has, for as long as a drain may
// take.
func (s *Shim) drainNode(d *drainWait, in *instance, t traffic, now time.Time) {
	if last := s.lastPart(); !d.cutting && !s.options.ShutdownMessage && now.After(d.deadline.Add(-last)) {
		d.cutting = in.node.channel.Order(nodecluster.CutWithin(last))
	}
	switch {
	case in.node.requests > 0: // the kernel does not know that an answer has begun and pauses
		t.quiet = false
	case !t.known && d.closing.IsZero():
		// Without counts the process itself says when it is done. What waits at its listeners it must take before.
		queued, err := s.queuedAt(in.number)
		t.quiet = err == nil && queued == 0
	}
	if !d.closing.IsZero() {
		if t.quiet && !s.options.ShutdownMessage && now.Sub(d.closing) >= closeFor {
			s.endDrain(d, drained{Open: t.open})
		}
		return
	}
	if !t.quiet || (!t.known || t.open > 0) && now.Sub(d.began) < letGoFor {
		return
	}
	if in.node.channel.Order(s.farewell()) {
		d.closing = now
		if !s.options.ShutdownMessage {
			in.node.channel.Order(nodecluster.CloseWithin(closeAfter)) // else they end with the process
		}
	}
}

// askNodes has Node processes that drain tell how many requests they have under way. On the handoff path the dispatcher asks.
func (s *Shim) askNodes() {
	for d := range s.drains {
		if in := s.instances[d.Instance]; in.attached() {
			in.node.channel.Order(nodecluster.AskReport(0)) // else the next tick does
		}
	}
}

// farewell is what tells a process to end: to close its servers, or what it makes of "shutdown".
func (s *Shim) farewell() nodecluster.Reply {
	if s.options.ShutdownMessage {
		return nodecluster.Shutdown()
	}
	return nodecluster.Disconnect()
}
