package channel

import (
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff/receiver"
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// conn is the channel of an instance's program. With Receiving the program gets its connections on
// it: the conn is a receiver.Receiver then.
type conn struct {
	*nodecluster.Channel
	instance int
	delivery path.Delivery // nil without Receiving
	log      *slog.Logger

	others chan heard // with Receiving: what Hear has read that is not about connections

	mu    sync.Mutex
	keys  [][]byte     // of the process's servers, by listener; nil while it does not serve all
	given []givenToken // not answered, in the order in which they were given
	lossy bool         // it could not receive a connection, and that was said
	held  bool         // others has no room, and Hear waits for that
}

// heard is a result of Channel.Read.
type heard struct {
	message nodecluster.Message
	err     error
}

// maxHeard is how many messages may wait for the shim's loop. When there are more, the program's
// channel is not read until there is room.
const maxHeard = 16

// givenToken is a connection on its way.
type givenToken struct {
	number  uint64
	arrived bool
}

func (all *Channels) newConn(instance int, channel *nodecluster.Channel) *conn {
	c := &conn{Channel: channel, instance: instance, log: all.log}
	if in := all.instances[instance]; in != nil {
		c.log = in.said
	}
	if all.receives() {
		c.others = make(chan heard, maxHeard)
	}
	return c
}

// receive has the path give the program its connections, if that does. A channel that an earlier
// process had is not fresh.
func (c *Channels) receive(channel *conn, fresh bool) (err error) {
	if c.receives() {
		channel.delivery, err = c.options.Receiving.Receive(channel.instance, channel, fresh)
	}
	return err
}

// serve says under which keys the process has servers for the listeners; nil if it has not.
func (c *conn) serve(keys [][]byte) {
	if c.delivery == nil {
		return
	}
	c.mu.Lock()
	if keys != nil {
		c.keys = keys // and else what was given before is still answered
	}
	c.mu.Unlock()
	c.delivery.Serving(keys != nil)
}

// Give is of receiver.Receiver.
func (c *conn) Give(listener, fd int) (number uint64, ok bool) {
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

// Ask is of receiver.Receiver.
func (c *conn) Ask(token int) {
	if !c.Order(nodecluster.AskReport(token)) {
		c.log.Debug("ask program what it has, ignoring")
	}
}

// next waits for the next message that the shim's loop is to take in.
func (c *conn) next() (nodecluster.Message, error) {
	if c.others == nil {
		return c.Read()
	}
	select {
	case h := <-c.others:
		c.mu.Lock()
		held := c.held
		c.held = false
		c.mu.Unlock()
		if held {
			c.delivery.Hear()
		}
		return h.message, h.err
	case <-c.Closed():
		return nodecluster.Message{}, net.ErrClosed
	}
}

// Hear is of receiver.Receiver.
func (c *conn) Hear(said []receiver.Said) ([]receiver.Said, bool) {
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
			said = append(said, receiver.Said{Report: true, Token: m.Token, Open: m.Open, Busy: m.Busy})
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

// firstOnWay is the connection that the next HandleAck or HandleLost is about, -1 if it is one of
// an earlier shim's.
func (c *conn) firstOnWay() int {
	return slices.IndexFunc(c.given, func(g givenToken) bool { return !g.arrived })
}

// lost is the connection that the process could not receive, most often as it has too many open
// files.
func (c *conn) lost() (number uint64, ok bool) {
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

func (c *conn) answered(number uint64, taken bool) receiver.Said {
	c.given = slices.DeleteFunc(c.given, func(g givenToken) bool { return g.number == number })
	if taken {
		c.lossy = false
	}
	return receiver.Said{Number: number, Taken: taken}
}

// serving sets in the dispatcher whether an instance's process takes connections now.
func (c *Channels) serving(in *instance) {
	if !c.receives() || !c.attached(in) {
		return
	}
	var keys [][]byte
	if worker := &in.program.worker; !worker.Left && len(worker.Missing(c.addresses)) == 0 {
		for _, address := range c.addresses {
			keys = append(keys, nodecluster.QuoteKey(worker.Key(address)))
		}
	}
	in.program.channel.serve(keys)
}
