package nodecluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
)

// A Letter is a message to the program itself, which it gets as event 'message' of its process. It is made once and may
// go to many channels. The zero Letter is none.
type Letter struct{ line []byte }

// NewLetter makes a letter of a JSON value of at most MaxLine bytes. It refuses what Node would take for a message of its
// own.
func NewLetter(value []byte) (Letter, error) {
	var line bytes.Buffer
	switch err := json.Compact(&line, value); { // without newlines, at which messages end
	case err != nil:
		return Letter{}, errors.New("the message is not JSON")
	case line.Len() > MaxLine:
		return Letter{}, fmt.Errorf("the message has %d bytes, the limit is %d", line.Len(), MaxLine)
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(line.Bytes(), &fields) == nil && internal(fields["cmd"]) != "" {
		return Letter{}, errors.New("the message has a \"cmd\" that begins with NODE_, which Node reserves")
	}
	line.WriteByte('\n')
	return Letter{line.Bytes()}, nil
}

// Limits of the letters that wait for one worker. Further ones are dropped: a worker that does not read for so long will
// not miss them, and nobody waits for it.
const (
	maxLetters     = 64
	maxLetterBytes = 256 << 10
)

// letters is the queue of a Channel.
type letters struct {
	queue chan Letter
	bytes atomic.Int64  // in queue
	sent  chan struct{} // has one if a letter was sent since the last look
}

// Post queues a letter for Carry and never waits; false if the worker has not read what was sent before.
func (c *Channel) Post(l Letter) bool {
	size := int64(len(l.line))
	if c.letters.bytes.Add(size) <= maxLetterBytes {
		select {
		case c.letters.queue <- l:
			return true
		default:
		}
	}
	c.letters.bytes.Add(-size)
	return false
}

// PostWithin is Post that waits for room; false if the channel or ctx ends before there is some. It is for others beside it.
func (c *Channel) PostWithin(ctx context.Context, l Letter) bool {
	for !c.Post(l) {
		select {
		case <-c.letters.sent: // another who waits may be faster, and then the queue is not empty, and there will be a next one
		case <-c.Closed():
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Carry sends what Post queues until ctx ends or sending fails; whoever runs it, beside Write, waits for its end. A letter
// is sent when the worker has read most of what was sent before, so letters never take the room that replies and orders
// need: a program that reads nothing loses letters, and nothing else.
func (c *Channel) Carry(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.open, cancel)()
	for {
		select {
		case l := <-c.letters.queue:
			if err := c.awaitRoom(ctx); err != nil {
				return ended(ctx, err)
			}
			if err := c.write(l.line); err != nil {
				c.Close() // a part of the line may have been sent, and nothing may follow that
				return ended(ctx, err)
			}
			c.letters.bytes.Add(-int64(len(l.line)))
			select {
			case c.letters.sent <- struct{}{}:
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
