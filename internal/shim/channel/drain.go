package channel

import (
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// letGoFor is how long a Node process that has open connections keeps its idle ones. If a client
// uses one within that time, the answer asks the client to close it. The process closes the others,
// and a client may be sending a request at that moment.
const letGoFor = time.Second

// closeAfter is the time over which the remaining connections of a process are closed at the end of
// a drain, and closeFor is how long to wait for that: when a server closes, Node before 19 leaves
// kept connections to its keepAliveTimeout, 5 s by default.
const (
	closeAfter = 5 * time.Second
	closeFor   = 6 * time.Second
)

// Drain is the end of a program that has a channel, in three steps: it lets its connections go,
// closes what is left, and ends.
type Drain struct {
	channels *Channels
	instance int
	in       *instance // nil if it had not joined
	token    int       // reports with a lower one are older than the drain
	closing  time.Time // when the process was told to end, or its connections; zero before
	cutting  bool      // the process was told to close what it has
	over     bool
}

// BeginDrain asks the program of an instance to end its connections. The caller ends the Drain.
func (c *Channels) BeginDrain(number int) *Drain {
	c.asked++
	in := c.instances[number]
	d := &Drain{channels: c, instance: number, in: in, token: c.asked}
	c.drains[d] = true
	if in != nil {
		in.draining++
	}
	if c.attached(in) && !in.program.channel.Order(nodecluster.LetGo()) {
		c.log.Warn("tell program to let its connections go, ignoring", "instance", number)
	}
	return d
}

// End ends a Drain. After that the program may stop or continue.
func (d *Drain) End() {
	delete(d.channels.drains, d)
	in := d.in
	if in == nil || d.channels.instances[d.instance] != in {
		return // it has left; another one may have its number
	}
	in.draining--
	if in.draining == 0 && d.channels.attached(in) && in.state == balance.Up {
		in.program.channel.Order(nodecluster.HoldOn()) // without room it closes connections that it could keep
	}
}

// Over says that the program has ended because of the drain.
func (d *Drain) Over() bool { return d.over }

// lastPart is the end of a drain time-out in which connections that never end are closed one after
// another, so that their clients do not all come back at once.
func (c *Channels) lastPart() time.Duration { return min(c.settings.DrainTimeout/5, closeAfter) }

// Step takes a drain further, of which a time has passed and a time is left. It is not mine if the
// instance's program has no channel: then the caller says when the drain is done. It is done when
// nothing is under way any more; the stop signal follows.
//
// The program is off the ring, says "Connection: close" in its answers and has told its sessions of
// HTTP/2 to go away. A program that does not handle the stop signal would drop all that is left at
// once: drain.cjs closes these connections before, one after another.
//
// With Receiving the process is told to close its servers, as the primary of a cluster does, and
// ends its channel when all its connections have ended (see Over).
//
// A program that is told by a message has to end by itself: until then it may save what it has, for
// as long as a drain may take.
func (d *Drain) Step(now time.Time, passed, left time.Duration, t path.Traffic) (mine, done bool) {
	c := d.channels
	in := c.instances[d.instance]
	if !c.attached(in) {
		return false, false
	}
	p := in.program
	if last := c.lastPart(); !d.cutting && !c.settings.ShutdownMessage && left < last {
		d.cutting = p.channel.Order(nodecluster.CutWithin(last))
	}
	quiet := d.quiet(p, t)
	if !d.closing.IsZero() {
		closed := !c.receives() && t.Own && t.Open == 0
		return true, quiet && !c.settings.ShutdownMessage && (closed || now.Sub(d.closing) >= closeFor)
	}
	if !quiet || (!t.Own || t.Open > 0) && passed < letGoFor {
		return true, false
	}
	switch {
	case c.settings.ShutdownMessage, c.receives():
		if !p.channel.Order(c.farewell()) {
			return true, false
		}
	case t.Own && t.Open == 0, p.report.Stops, !p.preloaded:
		return true, true
	}
	d.closing = now
	if !c.settings.ShutdownMessage {
		p.channel.Order(nodecluster.CloseWithin(closeAfter)) // else they end with the process
	}
	return true, false
}

// quiet says that the program has nothing under way.
func (d *Drain) quiet(p *program, t path.Traffic) bool {
	switch {
	case d.channels.receives():
		return t.Quiet // by the program's own report
	case p.preloaded && (p.report.Token < d.token || p.report.Busy > 0):
		return false // the kernel does not know that an answer has begun and pauses, nor that it is one of several
	case !t.Own:
		// Without counts the process reports when it is done. First it must accept the connections
		// that wait at its listeners.
		return t.Taken
	}
	return t.Quiet
}

// OutOfTime ends the steps at the drain time-out. The stop signal follows.
func (d *Drain) OutOfTime() {
	c := d.channels
	if in := c.instances[d.instance]; c.attached(in) && d.closing.IsZero() && c.settings.ShutdownMessage {
		in.program.channel.Order(c.farewell())
	}
}

// Ask asks the draining programs for their open requests. With Receiving the path asks.
func (c *Channels) Ask() {
	for d := range c.drains {
		if in := c.instances[d.instance]; c.attached(in) {
			c.askPreload(in.program) // without room the next tick does
		}
	}
}

// askPreload has a process report if drain.cjs is in it.
func (c *Channels) askPreload(p *program) {
	if !c.receives() && !c.options.Messages {
		p.channel.Order(nodecluster.AskReport(c.asked))
	}
}

// farewell returns the message that makes a process end: it closes its servers, or handles
// "shutdown".
func (c *Channels) farewell() nodecluster.Reply {
	if c.settings.ShutdownMessage {
		return nodecluster.Shutdown()
	}
	return nodecluster.Disconnect()
}
