package channel

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/internal/pace"
)

// What follows from a program's message costs PID 1 and the journal, so this limits how often a
// program may change what it serves. A usual program does so a few times as it starts. The messages
// of one that does it more often are read more slowly.
const (
	changesBurst = 200
	changesEvery = 100 * time.Millisecond
)

// hear reads the messages of a program until its channel or ctx ends.
func (c *Channels) hear(ctx context.Context, channel *conn) {
	changes := pace.Bucket{Burst: changesBurst, Every: changesEvery}
	bad := false
	for {
		m, err := channel.next()
		var badLine *nodecluster.BadLineError
		if errors.As(err, &badLine) {
			if !bad { // once: a shim before may have read the first half of the line
				c.log.Warn("message of instance not understood, ignoring", "instance", channel.instance, "error", err)
			}
			bad = true
			continue
		}
		if err != nil {
			return
		}
		switch m.Kind {
		case nodecluster.Mail:
			c.passOn(ctx, channel, m)
			continue
		case nodecluster.Ask, nodecluster.Listening, nodecluster.Closed, nodecluster.Leaving, nodecluster.HandleLost:
			if !channel.wait(ctx, &changes) {
				return
			}
		}
		var reply *nodecluster.Reply
		if !c.options.Do(ctx, func() { reply = c.said(channel, m) }) {
			return
		}
		if reply != nil && !channel.Send(*reply) {
			return
		}
	}
}

// wait returns when it may happen once more; false if the channel or ctx ends before.
func (c *conn) wait(ctx context.Context, b *pace.Bucket) bool {
	for !b.Take(time.Now()) {
		select {
		case <-time.After(b.Wait(time.Now())):
		case <-c.Closed():
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// said handles a message and returns the reply, nil for none.
func (c *Channels) said(channel *conn, m nodecluster.Message) *nodecluster.Reply {
	in := c.instances[channel.instance]
	if in == nil || in.program == nil || in.program.channel != channel {
		return nil // another process has the number now, and this one ends
	}
	n := in.program
	switch {
	case m.Kind == nodecluster.HandleSent:
		reply := nodecluster.AckHandle()
		return &reply
	case c.options.Messages:
		return nil // it has nothing to ask for
	case m.Kind == nodecluster.Report:
		n.report = m
		n.preloaded = true
	case m.Kind == nodecluster.Ready && !n.ready:
		n.ready = true
		c.programChanged(in)
	case c.receives():
		return c.workerSaid(in, m)
	}
	return nil
}

// ended records that a program's channel has ended. It removes PID 1's duplicate too, so that a
// program that receives its connections ends if only the channel has failed. Other programs
// continue without messages.
func (c *Channels) ended(channel *conn) {
	number := channel.instance
	in := c.instances[number]
	if in == nil || in.program == nil || in.program.channel != channel {
		return
	}
	in.program.gone = true
	c.removeChannel(number)
	for d := range c.drains {
		if d.instance == number && (c.receives() || !d.closing.IsZero() && c.settings.ShutdownMessage) {
			d.over = true
		}
	}
	if !c.receives() {
		in.program = nil
		return
	}
	in.program.worker = nodecluster.Worker{}
	channel.delivery.End()
	c.programChanged(in)
	c.forget(in)
}

// drop ends the channel of an instance that is dropped.
func (c *Channels) drop(in *instance) {
	if !in.reachable() {
		return
	}
	c.removeChannel(in.number)
	in.program.channel.Close()
	if c.receives() {
		in.program.channel.delivery.End()
	}
}

// forget drops the state of a program whose channel has ended, when PID 1 reports that the program
// has ended too: the instance's next program may be of another kind.
func (c *Channels) forget(in *instance) {
	if in.program != nil && in.program.gone && (in.state == balance.Down || in.state == balance.Starting) {
		in.program = nil
	}
}

// ticketKeysSize is of tls.Server.setTicketKeys.
const ticketKeysSize = 48

// shareTickets gives a program the keys of session tickets that all programs of the app have, so
// that a TLS client resumes its session at any instance. With Receiving they come with the answer
// to listen().
func (c *Channels) shareTickets(n *program) {
	if c.receives() || c.options.Messages {
		return
	}
	if c.keys == nil {
		c.keys = make([]byte, ticketKeysSize)
		rand.Read(c.keys) // never fails
	}
	n.channel.Order(nodecluster.UseTickets(c.keys))
}
