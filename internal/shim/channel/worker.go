package channel

import (
	"errors"

	"github.com/unitgen/unitgen/internal/nodecluster"
)

// workerSaid handles a message of the protocol of Node's cluster module, on the handoff path. It
// returns the reply, nil for none.
func (c *Channels) workerSaid(in *instance, m nodecluster.Message) *nodecluster.Reply {
	var reply *nodecluster.Reply
	worker := &in.program.worker
	switch m.Kind {
	case nodecluster.Ask:
		answer := c.promise(in, m)
		reply = &answer
	case nodecluster.Listening:
		if _, ok := worker.Listens(m.Asked); ok {
			in.refused = ""
		}
	case nodecluster.Closed:
		if address, ok := worker.Close(m.Key); ok && in.draining == 0 {
			in.said.Info("program has closed its server", "address", address.String())
		}
	case nodecluster.Leaving:
		worker.Left = true
		answer := nodecluster.Acknowledge(m)
		reply = &answer
	default:
		return nil
	}
	c.programChanged(in)
	return reply
}

// promise answers a call of listen().
func (c *Channels) promise(in *instance, m nodecluster.Message) nodecluster.Reply {
	key, address, err := in.program.worker.Give(m.Asked, c.addresses, c.settings.ProgramPort)
	var refusal *nodecluster.Refusal
	if errors.As(err, &refusal) {
		in.refused = refusal.Reason
		in.said.Warn("program may not listen: " + refusal.Reason)
		return nodecluster.Refuse(m, refusal.Errno, m.Data)
	}
	return nodecluster.Promise(m, key, c.tickets.Share(address, m.Data), address)
}
