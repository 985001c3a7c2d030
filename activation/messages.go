package activation

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// maxLetter bounds a message, in bytes of JSON without newlines (lbshim.protocol(7)).
const maxLetter = 64 << 10

// connectPause is how long OpenMessages waits before it tries again.
const connectPause = 100 * time.Millisecond

// Messages sends and receives messages between the programs of an app's instances, and receives
// those of "unitgen send". It needs --messages in unitgen, and a running balancer.
type Messages struct {
	conn *net.UnixConn
	read *bufio.Reader // of Receive

	mu       sync.Mutex // of Send
	instance int
}

// OpenMessages connects the process to the balancer of its app, at UNITGEN_CHANNEL in the
// environment. It waits until ctx ends for a balancer that starts or restarts. Only the main
// process of an instance may connect, once at a time: a second connection ends the first. The
// caller closes it.
//
// The error is ErrNotPassed if there is no such variable: the app has no messages.
func OpenMessages(ctx context.Context) (*Messages, error) {
	return Env{}.OpenMessages(ctx)
}

// OpenMessages is the function OpenMessages with the environment e.
func (e Env) OpenMessages(ctx context.Context) (*Messages, error) {
	path, ok := e.lookup("UNITGEN_CHANNEL")
	if !ok || path == "" {
		return nil, fmt.Errorf("open messages: %w: UNITGEN_CHANNEL is not set (unitgen APP --messages)", ErrNotPassed)
	}
	for {
		m, err := openMessages(ctx, path)
		var refused *refusedError
		if err == nil || errors.As(err, &refused) {
			return m, err
		}
		select {
		case <-time.After(connectPause):
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

// refusedError is the balancer's refusal of a process that may not connect.
type refusedError struct{ reason string }

func (r *refusedError) Error() string { return "open messages: refused: " + r.reason }

func openMessages(ctx context.Context, path string) (*Messages, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open messages: %w", err)
	}
	m := &Messages{conn: conn.(*net.UnixConn), read: bufio.NewReaderSize(conn, maxLetter+1)}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = m.greeted()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

// greeted reads the balancer's first line.
func (m *Messages) greeted() error {
	line, err := m.read.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("open messages: read greeting: %w", err)
	}
	var greeting struct {
		Instance int    `json:"instance"`
		Error    string `json:"error"`
	}
	switch err := json.Unmarshal(line, &greeting); {
	case err != nil:
		return fmt.Errorf("open messages: parse greeting: %w", err)
	case greeting.Error != "":
		return &refusedError{greeting.Error}
	}
	m.instance = greeting.Instance
	return nil
}

// Instance is the number of the instance that the process is.
func (m *Messages) Instance() int { return m.instance }

// Receive returns the next message, one value of JSON: what "unitgen send" was given, or what
// another instance sent, an object like {"type":"process:msg","data":…}. It waits; one goroutine at
// a time may call it. The error is io.EOF when the balancer has ended the connection, which
// outlives restarts of the balancer alone, and net.ErrClosed after Close.
//
// The balancer waits for no program: while some dozens of messages are not received, further ones
// are dropped.
func (m *Messages) Receive() (json.RawMessage, error) {
	line, err := m.read.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("receive message: %w", err)
	}
	return append(json.RawMessage(nil), line[:len(line)-1]...), nil
}

// Send sends data, as JSON, to one instance, or with 0 to all others. It returns when the
// balancer's kernel has the message; delivery is not confirmed. Programs for Node.js get it in
// PM2's form: {"type":"process:msg","to":…,"data":…}. It may be called from several goroutines.
func (m *Messages) Send(to int, data any) error {
	line, err := json.Marshal(struct {
		Type string `json:"type"`
		To   int    `json:"to,omitempty"`
		Data any    `json:"data"`
	}{"process:msg", to, data})
	switch {
	case err != nil:
		return fmt.Errorf("send message: %w", err)
	case to < 0:
		return fmt.Errorf("send message: no instance has number %d", to)
	case len(line) > maxLetter:
		return fmt.Errorf("send message: it has %d bytes, and %d are the limit", len(line), maxLetter)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// Close ends the connection; a Receive that waits returns.
func (m *Messages) Close() error { return m.conn.Close() }
