package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// AnswerTimeout bounds a call whose answer waits for nothing. A shim answers within milliseconds; one that asks PID 1 first,
// which is busy for seconds in a daemon-reload, takes longer. One that was killed in a reload answers nobody until the reload
// has ended.
const AnswerTimeout = 10 * time.Second

// ErrNoAnswer says that a shim did not answer within AnswerTimeout.
var ErrNoAnswer = errors.New("the shim does not answer")

// Client is one connection to a shim. It is not safe for concurrent use.
type Client struct {
	wire   wire
	answer time.Duration // AnswerTimeout
}

// Dial connects to the control socket at path. PID 1 listens there and starts the shim if it does not run.
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to shim: %w", err)
	}
	return &Client{wire: wire{conn: conn.(*net.UnixConn)}, answer: AnswerTimeout}, nil
}

// Close ends the connection.
func (c *Client) Close() error {
	c.wire.drop()
	return c.wire.conn.Close()
}

// Call sends one call with copies of fds, which stay the caller's, and decodes the parameters of its reply into result
// unless that is nil. A refusal is an *Error. It fails with ErrNoAnswer after AnswerTimeout, or with ctx; a Client whose Call
// failed otherwise than by a refusal is of no further use.
func (c *Client) Call(ctx context.Context, method string, parameters, result any, fds ...int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.answer, ErrNoAnswer)
	defer cancel()
	return c.Wait(ctx, method, parameters, result, fds...)
}

// Wait is Call for a method that answers when something has come about: ctx alone bounds it.
func (c *Client) Wait(ctx context.Context, method string, parameters, result any, fds ...int) error {
	if err := c.send(ctx, Call{Method: Interface + "." + method}, parameters, fds...); err != nil {
		return err
	}
	_, err := c.receive(ctx, result)
	return err
}

// Take is Call for a reply with descriptors, which the caller closes.
func (c *Client) Take(ctx context.Context, method string, parameters any) ([]int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.answer, ErrNoAnswer)
	defer cancel()
	if err := c.send(ctx, Call{Method: Interface + "." + method}, parameters); err != nil {
		return nil, err
	}
	_, fds, err := c.receiveFDs(ctx, nil)
	return fds, err
}

// Stream sends one call with "more" and gives each reply's parameters to each, until the last one or an error.
// ctx alone bounds it.
func (c *Client) Stream(ctx context.Context, method string, parameters any, each func(json.RawMessage) error) error {
	if err := c.send(ctx, Call{Method: Interface + "." + method, More: true}, parameters); err != nil {
		return err
	}
	for {
		var raw json.RawMessage
		continues, err := c.receive(ctx, &raw)
		if err != nil {
			return err
		}
		if err := each(raw); err != nil || !continues {
			return err
		}
	}
}

// First sends one call with "more" and returns with its first reply; the call goes on until Close. ctx alone
// bounds it.
func (c *Client) First(ctx context.Context, method string, parameters any) error {
	if err := c.send(ctx, Call{Method: Interface + "." + method, More: true}, parameters); err != nil {
		return err
	}
	_, err := c.receive(ctx, nil)
	return err
}

func (c *Client) send(ctx context.Context, call Call, parameters any, fds ...int) error {
	raw, err := json.Marshal(parameters)
	if err != nil {
		return fmt.Errorf("encode parameters: %w", err)
	}
	call.Parameters = raw
	defer c.bound(ctx)()
	err = c.wire.write(call, fds...)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

func (c *Client) receive(ctx context.Context, result any) (continues bool, err error) {
	continues, fds, err := c.receiveFDs(ctx, result)
	closeAll(fds)
	return continues, err
}

// receiveFDs is receive that leaves the descriptors to the caller, of whom there are none with an error.
func (c *Client) receiveFDs(ctx context.Context, result any) (continues bool, fds []int, err error) {
	defer c.bound(ctx)()
	defer func() {
		if err != nil {
			closeAll(fds)
			fds = nil
		}
	}()
	message, fds, err := c.wire.read()
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return false, fds, fmt.Errorf("read reply of shim: %w", err)
	}
	var reply Reply
	if err := json.Unmarshal(message, &reply); err != nil {
		return false, fds, fmt.Errorf("parse reply of shim: %w", err)
	}
	if err := reply.errorOf(); err != nil {
		return false, fds, err
	}
	if result != nil && len(reply.Parameters) > 0 {
		if err := json.Unmarshal(reply.Parameters, result); err != nil {
			return false, fds, fmt.Errorf("parse reply of shim: %w", err)
		}
	}
	return reply.Continues, fds, nil
}

// bound makes blocking reads and writes of the connection end with ctx; the returned function undoes it.
func (c *Client) bound(ctx context.Context) (undo func()) {
	stop := context.AfterFunc(ctx, func() { c.wire.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}
