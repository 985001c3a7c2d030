package shim

import (
	"errors"
	"log/slog"
	"net"
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

	others chan heard // on the handoff path: what Hear has met that is not about connections

	mu    sync.Mutex
	keys  [][]byte     // of the process's servers, by listener; nil while it does not serve all
	given []givenToken // not answered, in the order in which they were given
	lossy bool         // it could not receive a connection, and that was said
	held  bool         // others has no room, and Hear waits for that
}

// heard is what Channel.Read would have returned.
type heard struct {
	message nodecluster.Message
	err     error
}

// maxHeard is how many messages wait for the shim's loop; then the process is not heard until there is room.
const maxHeard = 16

// givenToken is a connection on its way.
type givenToken struct {
	number  uint64
	arrived bool
}

func (s *Shim) newNodeChannel(instance int, channel *nodecluster.Channel) *nodeChannel {
	c := &nodeChannel{Channel: channel, instance: instance, log: s.log}
	if in := s.instances[instance]; in != nil {
		c.log = in.said
	}
	if s.receives() {
		c.dispatcher, c.others = s.handoff, make(chan heard, maxHeard)
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
			c.log.Debug("give connection to program, ignoring", "error", err) // its channel ends
		}
		return 0, false
	}
	c.given = append(c.given, givenToken{number: number})
	return number, true
}

// Ask is of handoff.Receiver.
func (c *nodeChannel) Ask(token int) {
	if !c.Order(nodecluster.AskReport(token)) {
		c.log.Debug("ask program what it has, ignoring")
	}
}

// next waits for the next message that the shim's loop is to take in.
func (c *nodeChannel) next() (nodecluster.Message, error) {
	if c.dispatcher == nil {
		return c.Read()
	}
	select {
	case h := <-c.others:
		c.mu.Lock()
		held := c.held
		c.held = false
		c.mu.Unlock()
		if held {
			c.dispatcher.Hear(c.instance, c)
		}
		return h.message, h.err
	case <-c.Closed():
		return nodecluster.Message{}, net.ErrClosed
	}
}

// Hear is of handoff.Receiver.
func (c *nodeChannel) Hear(said []handoff.Said) ([]handoff.Said, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	more := c.Channel.Hear(func(m nodecluster.Message, err error) bool {
		switch m.Kind {
		case nodecluster.HandleAck:
			if i := c.firstOnWay(); i >= 0 {
				c.given[i].arrived = true
			}
		case nodecluster.HandleLost:
			if number, ok := c.lost(); ok {
				said = append(said, c.answered(number, false))
			}
		case nodecluster.Answered:
			said = append(said, c.answered(m.Ack, m.Taken))
		case nodecluster.Report:
			said = append(said, handoff.Said{Report: true, Token: m.Token, Open: m.Open, Busy: m.Busy})
		default:
			select {
			case c.others <- heard{m, err}:
			default:
				c.held = true
				return false
			}
		}
		return true
	})
	return said, more
}

// firstOnWay is the connection that the next HandleAck or HandleLost is about, -1 if it is one of an earlier shim's.
func (c *nodeChannel) firstOnWay() int {
	return slices.IndexFunc(c.given, func(g givenToken) bool { return !g.arrived })
}

// lost is the connection that the process could not receive, most often as it has too many open files.
func (c *nodeChannel) lost() (number uint64, ok bool) {
	i := c.firstOnWay()
	if i < 0 {
		return 0, false
	}
	if !c.lossy {
		c.log.Error("program could not receive a connection, another gets it; has it too many open files?")
		c.lossy = true
	}
	return c.given[i].number, true
}

func (c *nodeChannel) answered(number uint64, taken bool) handoff.Said {
	c.given = slices.DeleteFunc(c.given, func(g givenToken) bool { return g.number == number })
	if taken {
		c.lossy = false
	}
	return handoff.Said{Number: number, Taken: taken}
}

// serving tells the dispatcher whether an instance's process takes connections now.
func (s *Shim) serving(in *instance) {
	if !s.receives() || !s.attached(in) {
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
