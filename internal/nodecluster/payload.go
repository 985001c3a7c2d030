package nodecluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
)

// A Payload is a message to the program, which gets it as event 'message' of its process. One
// Payload may go to many channels. The zero Payload is empty and is not sent.
type Payload struct{ line []byte }

// NewPayload makes a Payload of a JSON value of at most MaxLine bytes. It refuses a value that Node
// would take for an internal message.
func NewPayload(value []byte) (Payload, error) {
	var line bytes.Buffer
	switch err := json.Compact(&line, value); { // without newlines, at which messages end
	case err != nil:
		return Payload{}, errors.New("the message is not JSON")
	case line.Len() > MaxLine:
		return Payload{}, fmt.Errorf("the message has %d bytes, the limit is %d", line.Len(), MaxLine)
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(line.Bytes(), &fields) == nil && internal(fields["cmd"]) != "" {
		return Payload{}, errors.New("the message has a \"cmd\" that begins with NODE_, which Node reserves")
	}
	line.WriteByte('\n')
	return Payload{line.Bytes()}, nil
}

// Limits of the payloads that wait for one worker. Further payloads are dropped: a worker that does
// not read for so long is stuck, and no sender waits for it.
const (
	maxPayloads     = 64
	maxPayloadBytes = 256 << 10
)

// payloads is the queue of a Channel.
type payloads struct {
	queue chan Payload
	bytes atomic.Int64  // in queue
	sent  chan struct{} // has one if a payload was sent since the last look
}

// Post queues a payload for Carry and never waits. It returns false if the worker has not read
// enough of the earlier ones.
func (c *Channel) Post(l Payload) bool {
	size := int64(len(l.line))
	if c.payloads.bytes.Add(size) <= maxPayloadBytes {
		select {
		case c.payloads.queue <- l:
			return true
		default:
		}
	}
	c.payloads.bytes.Add(-size)
	return false
}

// PostWithin is Post that waits for room; false if the channel or ctx ends before there is some. It
// is for others beside it.
func (c *Channel) PostWithin(ctx context.Context, l Payload) bool {
	for !c.Post(l) {
		select {
		case <-c.payloads.sent: // another who waits may be faster, and then the queue is not empty, and there will be a next one
		case <-c.Closed():
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Carry sends the queued payloads until ctx ends or sending fails. It runs beside Write, and the
// caller waits for its end. It sends a payload when the worker has read most of the earlier data,
// so payloads never take the room that replies and orders need: a program that reads nothing loses
// only payloads.
func (c *Channel) Carry(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.open, cancel)()
	for {
		select {
		case l := <-c.payloads.queue:
			if err := c.awaitRoom(ctx); err != nil {
				return ended(ctx, err)
			}
			if err := c.write(l.line); err != nil {
				c.Close() // a part of the line may have been sent, and nothing may follow that
				return ended(ctx, err)
			}
			c.payloads.bytes.Add(-int64(len(l.line)))
			select {
			case c.payloads.sent <- struct{}{}:
			default:
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("send message to worker: %w", err)
}
