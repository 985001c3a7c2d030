package shim

import (
	"errors"
	"log/slog"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/nodecluster"
)

// nodeChannel is the channel of an instance's Node process. On the handoff path the process gets its connections on it: the
// channel is a handoff.Receiver then.
type nodeChannel struct {
	*nodecluster.Channel
	instance   int
	dispatcher *handoff.Dispatcher // nil on the steer path
	log        *slog.Logger

	mu    sync.Mutex
	keys  [][]byte     // of the process's servers, by listener; nil while it does not serve all
	given []givenToken // not answered, in the order in which they were given
	lossy bool         // it could not receive a connection, and that was said
}

// givenToken is a connection on its way.
type givenToken struct {
	number  uint64
	arrived bool
}

func (s *Shim) newNodeChannel(instance int, channel *nodecluster.Channel) *nodeChannel {
	c := &nodeChannel{Channel: channel, instance: instance, log: s.log}
	if s.receives() {
		c.dispatcher = s.handoff
	}
	return c
}

// receives says whether instances are given their connections on their channel.
func (s *Shim) receives() bool { return s.handsOff() && s.nodes.listener != nil && !s.options.Messages }

// serve says under which keys the process has servers for the listeners; nil if it has not.
func (c *nodeChannel) serve(keys [][]byte) {
	if c.dispatcher == nil {
		return
	}
	c.mu.Lock()
	if keys != nil {
		c.keys = keys // and else what was given before is still answered
	}
	c.mu.Unlock()
	c.dispatcher.Serving(c.instance, c, keys != nil)
}

// Give is of handoff.Receiver.
func (c *nodeChannel) Give(listener, fd int) (number uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	number, err := c.Hand(c.keys[listener], fd)
	if err != nil {
		if !errors.Is(err, unix.EAGAIN) {
			c.log.Debug("give connection to program, ignoring", "instance", c.instance, "error", err) // its channel ends
		}
		return 0, false
	}
	c.given = append(c.given, givenToken{number: number})
	return number, true
}

// Ask is of handoff.Receiver.
func (c *nodeChannel) Ask(token int) {
	if !c.Order(nodecluster.AskReport(token)) {
		c.log.Debug("ask program what it has, ignoring", "instance", c.instance)
	}
}

// took takes in a message that is about connections; false for any other. The shim's loop has no part in it.
func (c *nodeChannel) took(m nodecluster.Message) bool {
	if c.dispatcher == nil {
		return false
	}
	switch m.Kind {
	case nodecluster.HandleAck:
		c.mu.Lock()
		if i := c.firstOnWay(); i >= 0 {
			c.given[i].arrived = true
		}
		c.mu.Unlock()
	case nodecluster.HandleLost:
		c.lost()
	case nodecluster.Answered:
		c.answered(m.Ack, m.Taken)
	case nodecluster.Report:
		c.dispatcher.Reported(c.instance, c, m.Token, m.Open, m.Busy)
	default:
		return false
	}
	return true
}

// firstOnWay is the connection that the next HandleAck or HandleLost is about, -1 if it is one of an earlier shim's.
func (c *nodeChannel) firstOnWay() int {
	return slices.IndexFunc(c.given, func(g givenToken) bool { return !g.arrived })
}

// lost notes that the process could not receive a connection, most often as it has too many open files.
func (c *nodeChannel) lost() {
	c.mu.Lock()
	i := c.firstOnWay()
	if i < 0 {
		c.mu.Unlock()
		return
	}
	number := c.given[i].number
	if !c.lossy {
		c.log.Error("program could not receive a connection, another gets it; has it too many open files?", "instance", c.instance)
		c.lossy = true
	}
	c.mu.Unlock()
	c.answered(number, false)
}

func (c *nodeChannel) answered(number uint64, taken bool) {
	c.mu.Lock()
	c.given = slices.DeleteFunc(c.given, func(g givenToken) bool { return g.number == number })
	if taken {
		c.lossy = false
	}
	c.mu.Unlock()
	c.dispatcher.Answered(c.instance, c, number, taken)
}

// serving tells the dispatcher whether an instance's process takes connections now.
func (s *Shim) serving(in *instance) {
	if !in.attached() {
		return
	}
	var keys [][]byte
	if worker := &in.node.worker; !worker.Left && len(worker.Missing(s.nodeAddresses())) == 0 {
		for _, address := range s.nodeAddresses() {
			keys = append(keys, nodecluster.QuoteKey(worker.Key(address)))
		}
	}
	in.node.channel.serve(keys)
}
