package systemd

import (
	"context"
	"time"
)

// How often a question is repeated when the connection breaks: PID 1 goes away for some 100 ms in
// daemon-reexec.
const (
	askTries = 20
	askPause = 100 * time.Millisecond
)

// Asker asks a manager that may be away for a moment, over one connection for as long as that
// lasts. It is not safe for concurrent use. Whoever made it closes it.
type Asker struct {
	Dial func(context.Context) (*Conn, error)

	conn *Conn // nil before the first question, and after a failure
}

// Ask runs f, and again with a new connection if the manager or the bus was away, for up to two
// seconds beside f itself. f must bear being run twice: a job that is queued already is merged.
func (a *Asker) Ask(ctx context.Context, f func(*Conn) error) error {
	for try := 1; ; try++ {
		err := a.once(ctx, f)
		if err == nil || !IsDisconnected(err) {
			return err
		}
		a.Close()
		if try == askTries {
			return err
		}
		timer := time.NewTimer(askPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (a *Asker) once(ctx context.Context, f func(*Conn) error) (err error) {
	if a.conn == nil {
		if a.conn, err = a.Dial(ctx); err != nil {
			return err
		}
	}
	return f(a.conn)
}

// Close closes the connection, if there is one. The next question makes another.
func (a *Asker) Close() {
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}

// Ask is Asker.Ask for one question, over Dial.
func Ask(ctx context.Context, e Endpoint, f func(*Conn) error) error {
	a := Asker{Dial: func(ctx context.Context) (*Conn, error) { return Dial(ctx, e) }}
	defer a.Close()
	return a.Ask(ctx, f)
}
