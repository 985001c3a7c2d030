package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/unitgen/unitgen/internal/sock"
)

// AnswerTimeout bounds a call whose answer waits for nothing. A shim answers within milliseconds;
// one that asks PID 1 first, which is busy for seconds in a daemon-reload, takes longer. One that
// was killed in a reload answers nobody until the reload has ended.
const AnswerTimeout = 10 * time.Second

// ErrNoAnswer says that a shim did not answer within AnswerTimeout.
var ErrNoAnswer = errors.New("the shim does not answer")

// Call makes one call to the shim whose control socket is at path, with copies of fds, which stay
// the caller's. It decodes the parameters of the reply into result unless that is nil. PID 1
// listens on the socket and starts the shim if it does not run. A refusal is an *Error. Call fails
// with ErrNoAnswer after AnswerTimeout, or with ctx.
func Call(ctx context.Context, path, method string, parameters, result any, fds ...int) error {
	return connected(ctx, path, func(c *client) error { return c.call(ctx, method, parameters, result, fds...) })
}

// Wait is Call for a method that answers when something has happened: ctx alone bounds it.
func Wait(ctx context.Context, path, method string, parameters, result any) error {
	return connected(ctx, path, func(c *client) error { return c.wait(ctx, method, parameters, result) })
}

// Take is Call for a reply with descriptors, which the caller closes.
func Take(ctx context.Context, path, method string, parameters any) (fds []int, err error) {
	err = connected(ctx, path, func(c *client) error {
		fds, err = c.take(ctx, method, parameters)
		return err
	})
	return fds, err
}

// Stream makes one call with "more" and gives the parameters of each reply to each, until the last
// one or an error. ctx alone bounds it.
func Stream(ctx context.Context, path, method string, parameters any, each func(json.RawMessage) error) error {
	return connected(ctx, path, func(c *client) error { return c.stream(ctx, method, parameters, each) })
}

// Hold makes one call with "more" and returns with its first reply. The call goes on until the
// caller closes it. ctx alone bounds the wait for the reply.
func Hold(ctx context.Context, path, method string, parameters any) (io.Closer, error) {
	c, err := dial(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := c.first(ctx, method, parameters); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Session is a connection for several calls, one after another. It is not safe for concurrent use.
// A Session whose Call failed otherwise than by a refusal is of no further use.
type Session struct{ c *client }

// Connect begins a session with the shim whose control socket is at path. The caller closes it.
func Connect(ctx context.Context, path string) (*Session, error) {
	c, err := dial(ctx, path)
	if err != nil {
		return nil, err
	}
	return &Session{c}, nil
}

// Call is as the function of that name.
func (s *Session) Call(ctx context.Context, method string, parameters, result any) error {
	return s.c.call(ctx, method, parameters, result)
}

// Close ends the session.
func (s *Session) Close() error { return s.c.Close() }

// connected runs f with a connection to the shim.
func connected(ctx context.Context, path string, f func(*client) error) error {
	c, err := dial(ctx, path)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// client is one connection to a shim. It is not safe for concurrent use. A client whose call failed
// otherwise than by a refusal is of no further use.
type client struct {
	wire   wire
	answer time.Duration // AnswerTimeout
}

func dial(ctx context.Context, path string) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to shim: %w", err)
	}
	return &client{wire: wire{conn: conn.(*net.UnixConn)}, answer: AnswerTimeout}, nil
}

// Close ends the connection.
func (c *client) Close() error {
	c.wire.drop()
	return c.wire.conn.Close()
}

func (c *client) call(ctx context.Context, method string, parameters, result any, fds ...int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.answer, ErrNoAnswer)
	defer cancel()
	return c.wait(ctx, method, parameters, result, fds...)
}

func (c *client) wait(ctx context.Context, method string, parameters, result any, fds ...int) error {
	if err := c.send(ctx, method, false, parameters, fds...); err != nil {
		return err
	}
	_, err := c.receive(ctx, result)
	return err
}

func (c *client) take(ctx context.Context, method string, parameters any) ([]int, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.answer, ErrNoAnswer)
	defer cancel()
	if err := c.send(ctx, method, false, parameters); err != nil {
		return nil, err
	}
	_, fds, err := c.receiveFDs(ctx, nil)
	return fds, err
}

func (c *client) stream(ctx context.Context, method string, parameters any, each func(json.RawMessage) error) error {
	if err := c.send(ctx, method, true, parameters); err != nil {
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

func (c *client) first(ctx context.Context, method string, parameters any) error {
	if err := c.send(ctx, method, true, parameters); err != nil {
		return err
	}
	_, err := c.receive(ctx, nil)
	return err
}

// send sends one call; more says that it may be answered several times.
func (c *client) send(ctx context.Context, method string, more bool, parameters any, fds ...int) error {
	raw, err := json.Marshal(parameters)
	if err != nil {
		return fmt.Errorf("encode parameters: %w", err)
	}
	defer c.bound(ctx)()
	err = c.wire.write(call{Method: Interface + "." + method, Parameters: raw, More: more}, fds...)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

func (c *client) receive(ctx context.Context, result any) (continues bool, err error) {
	continues, fds, err := c.receiveFDs(ctx, result)
	sock.CloseAll(fds)
	return continues, err
}

// receiveFDs is receive that leaves the descriptors to the caller, of whom there are none with an
// error.
func (c *client) receiveFDs(ctx context.Context, result any) (continues bool, fds []int, err error) {
	defer c.bound(ctx)()
	defer func() {
		if err != nil {
			sock.CloseAll(fds)
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

// bound makes blocking reads and writes of the connection end with ctx; the returned function
// undoes it.
func (c *client) bound(ctx context.Context) (undo func()) {
	stop := context.AfterFunc(ctx, func() { c.wire.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}
