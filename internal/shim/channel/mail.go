package channel

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/nodecluster"
)

// Send answers method Send: a message for the program of one instance, or of all. It waits for no
// program.
func (c *Channels) Send(ctx context.Context, r *control.Request) (any, error) {
	var p control.SendParameters
	if err := r.Decode(&p); err != nil {
		return nil, err
	}
	payload, err := nodecluster.NewPayload(p.Message)
	if err != nil {
		return nil, err
	}
	var sent control.Sent
	if err := c.run(ctx, func() error {
		sent = c.post(payload, p.Instance, 0)
		for _, number := range sent.Dropped {
			c.tooSlow(c.instances[number].program)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if len(sent.Instances)+len(sent.Dropped) == 0 {
		reason := "no instance runs a program that takes messages"
		if p.Instance != 0 {
			reason = fmt.Sprintf("instance %d is not there, or runs no program that takes messages", p.Instance)
		}
		return nil, &control.Error{Name: control.ErrNoSuchInstance, Reason: reason}
	}
	return sent, nil
}

// post gives a payload to instance to, or to all but instance from if to is 0, where there is room.
func (c *Channels) post(l nodecluster.Payload, to, from int) (sent control.Sent) {
	for number, in := range c.instances {
		if !in.reachable() || to != 0 && number != to || to == 0 && number == from {
			continue
		}
		if in.program.channel.Post(l) {
			sent.Instances = append(sent.Instances, number)
		} else {
			sent.Dropped = append(sent.Dropped, number)
		}
	}
	slices.Sort(sent.Instances)
	slices.Sort(sent.Dropped)
	return sent
}

// How long to hold up a program that sends messages faster than another program reads them, and for
// how long a program that did not read for that time holds up nobody again. So a hung or hostile
// program costs its siblings little.
const (
	readWithin = time.Second
	slowFor    = 10 * time.Second
)

// passOn sends on what a program sent for others. It returns when all of them have it in their
// queues, or have had no room for too long; the sender's channel is not read meanwhile.
func (c *Channels) passOn(ctx context.Context, from *conn, m nodecluster.Message) {
	payload, err := nodecluster.NewPayload(m.Text)
	if err != nil {
		from.log.Warn("pass message on, ignoring", "error", err)
		return
	}
	var waiting []*program
	c.options.Do(ctx, func() {
		if in := c.instances[from.instance]; in == nil || in.program == nil || in.program.channel != from {
			return // another process has the number now, and this one ends
		}
		sent := c.post(payload, m.To, from.instance)
		if m.To != 0 && len(sent.Instances)+len(sent.Dropped) == 0 {
			from.log.Debug("program sent a message to an instance that is not there, ignoring", "to", m.To)
		}
		for _, number := range sent.Dropped {
			if n := c.instances[number].program; time.Now().After(n.slow) {
				waiting = append(waiting, n)
			}
		}
	})
	if len(waiting) == 0 {
		return
	}
	limited, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	var posts sync.WaitGroup
	for _, n := range waiting {
		posts.Go(func() {
			if !n.channel.PostWithin(limited, payload) {
				c.options.Do(ctx, func() { c.tooSlow(n) })
			}
		})
	}
	posts.Wait()
}

// tooSlow notes that a program has lost a message.
func (c *Channels) tooSlow(n *program) {
	now := time.Now()
	if now.After(n.slow) && !n.gone {
		n.channel.log.Warn("program does not read its messages, those that have no room are dropped")
	}
	n.slow = now.Add(slowFor)
}
