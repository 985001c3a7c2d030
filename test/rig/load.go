package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// LoadOptions describe HTTP load. Only Addr must be given, or Ask.
type LoadOptions struct {
	Network, Addr string        // where to connect: "127.0.0.1:3000"; Network "tcp" if empty
	Path          string        // "/" if empty
	Clients       int           // concurrent clients, 8 if zero
	Rate          int           // requests per second of all clients together; zero: see usualRate
	KeepAlive     bool          // one connection per client; else a new one per request
	Duration      time.Duration // ends by itself after this; zero: at Stop
	Requests      int           // ends by itself after so many; zero: no limit
	Timeout       time.Duration // of one request, connecting included; 10 s if zero
	Want          string        // what every body must contain

	// Ask asks the server in its own way and returns the answer, in place of HTTP at Addr; ctx ends
	// at Timeout.
	Ask func(ctx context.Context) ([]byte, error)
	// Dial connects; nil: from the host. Container.StartLoad sets it.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// usualRate is the rate of load that has neither a rate nor an end of its own, in requests per
// second. A fault meets requests at this rate too, and the tests that run beside have the
// processors. With All, and where Duration or Requests ends it, such load is as fast as answers
// come.
const usualRate = 500

// Load is running load. Its clients speak HTTP/1.1 themselves rather than through net/http, whose
// client repeats failed requests in silence: here every failure is seen.
type Load struct {
	opts    LoadOptions
	request []byte
	stop    chan struct{} // closed by Stop
	stopped sync.Once
	tickets chan struct{} // one per request to send; closed when the load is over
	done    chan struct{} // closed when all clients have ended
	began   time.Time

	mu       sync.Mutex
	result   Result
	progress chan struct{} // closed and replaced at each OK answer while somebody waits
}

// StartLoad puts load on an address of the container until Stop, or until the options' own limits.
func (c *Container) StartLoad(opts LoadOptions) *Load {
	opts.Dial = c.DialContext
	return StartLoad(opts)
}

// StartLoad is Container.StartLoad without a container, through opts.Dial.
func StartLoad(opts LoadOptions) *Load {
	if opts.Dial == nil {
		opts.Dial = new(net.Dialer).DialContext
	}
	if opts.Network == "" {
		opts.Network = "tcp"
	}
	if opts.Path == "" {
		opts.Path = "/"
	}
	if opts.Clients == 0 {
		opts.Clients = 8
	}
	if opts.Timeout == 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.Rate == 0 && opts.Duration == 0 && opts.Requests == 0 && !All() {
		opts.Rate = usualRate
	}
	connection := "close"
	if opts.KeepAlive {
		connection = "keep-alive"
	}
	l := &Load{
		opts: opts,
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: rig\r\nUser-Agent: rig\r\nConnection: %s\r\n\r\n",
			opts.Path, connection),
		stop: make(chan struct{}), tickets: make(chan struct{}), done: make(chan struct{}), began: time.Now(),
		result: newResult(),
	}
	go l.run()
	return l
}

// Stop ends the load after the requests in flight and returns the result. It may be called more
// than once.
func (l *Load) Stop() Result {
	l.stopped.Do(func() { close(l.stop) })
	return l.Wait()
}

// Wait waits for the load's own end (Duration, Requests) and returns the result.
func (l *Load) Wait() Result {
	<-l.done
	return l.Snapshot()
}

// Snapshot returns the result so far.
func (l *Load) Snapshot() Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.result.clone()
	select {
	case <-l.done:
	default:
		r.Elapsed = time.Since(l.began)
	}
	return r
}

// WaitOK waits until n more answers than now were right: the load flows.
func (l *Load) WaitOK(ctx context.Context, n int) error {
	want := -1
	for {
		l.mu.Lock()
		if want < 0 {
			want = l.result.OK + n
		}
		reached := l.result.OK >= want
		if l.progress == nil {
			l.progress = make(chan struct{})
		}
		progress := l.progress
		l.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-progress:
		case <-l.done:
			return fmt.Errorf("wait for %d answers: the load has ended: %s", n, l.Snapshot())
		case <-ctx.Done():
			return fmt.Errorf("wait for %d answers: %w: %s", n, ctx.Err(), l.Snapshot())
		}
	}
}

// run starts the clients and hands out tickets until a limit is reached.
func (l *Load) run() {
	var clients sync.WaitGroup
	for range l.opts.Clients {
		clients.Go(l.client)
	}
	l.handOut()
	close(l.tickets)
	clients.Wait()
	l.mu.Lock()
	l.result.Elapsed = time.Since(l.began)
	l.mu.Unlock()
	close(l.done)
}

// handOut gives one ticket per request. At a rate, each ticket has its due time on a fixed
// schedule; what the clients could not take in time is not made up for in a burst: the schedule
// moves on from now when it is a second late.
func (l *Load) handOut() {
	var end <-chan time.Time
	if l.opts.Duration > 0 {
		end = time.After(l.opts.Duration)
	}
	due, pause := l.began, time.NewTimer(0)
	defer pause.Stop()
	for n := 0; l.opts.Requests == 0 || n < l.opts.Requests; n++ {
		if l.opts.Rate > 0 {
			due = due.Add(time.Second / time.Duration(l.opts.Rate))
			if now := time.Now(); now.Sub(due) > time.Second {
				due = now
			}
			pause.Reset(time.Until(due))
			select {
			case <-pause.C:
			case <-l.stop:
				return
			case <-end:
				return
			}
		}
		select {
		case l.tickets <- struct{}{}:
		case <-l.stop:
			return
		case <-end:
			return
		}
	}
}

// client sends one request per ticket.
func (l *Load) client() {
	var conn *loadConn
	defer func() { conn.close() }()
	for range l.tickets {
		began := time.Now()
		ctx, cancel := context.WithDeadline(context.Background(), began.Add(l.opts.Timeout))
		var body []byte
		var err error
		if l.opts.Ask != nil {
			body, err = l.opts.Ask(ctx)
		} else {
			conn, body, err = l.exchange(ctx, conn)
		}
		cancel()
		if err != nil || !l.opts.KeepAlive {
			conn.close()
			conn = nil
		}
		l.record(began, body, err)
	}
}

// exchange sends the request on conn (nil: a new connection) and returns the connection for the
// next one, or nil.
func (l *Load) exchange(ctx context.Context, conn *loadConn) (*loadConn, []byte, error) {
	if conn != nil && conn.closedByPeer() {
		conn.close()
		conn = nil
	}
	reused := conn != nil
	for {
		if conn == nil {
			c, err := l.opts.Dial(ctx, l.opts.Network, l.opts.Addr)
			if err != nil {
				return nil, nil, err
			}
			conn = &loadConn{Conn: c, r: bufio.NewReader(c)}
			l.count(func(r *Result) { r.Connections++ })
		}
		body, answered, err := conn.roundTrip(ctx, l.request, l.opts.Want)
		if err == nil && conn.last {
			conn.close()
			return nil, body, nil
		}
		if err == nil || !reused || answered || !isClosed(err) {
			return conn, body, err
		}
		// The server closed the kept connection while the request was under way. A client sends it
		// again (RFC 9112 section 9.3.1); so it is not lost, but counted.
		l.count(func(r *Result) { r.Stale++ })
		conn.close()
		conn, reused = nil, false
	}
}

func (l *Load) count(f func(*Result)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.result)
}

func (l *Load) record(began time.Time, body []byte, err error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.add(began, now, body, err)
	if err == nil && l.progress != nil {
		close(l.progress)
		l.progress = nil
	}
}

// loadConn is one client connection.
type loadConn struct {
	net.Conn
	r    *bufio.Reader
	last bool // the server has said that it closes
}

func (c *loadConn) close() {
	if c != nil {
		c.Conn.Close()
	}
}

// closedByPeer reports whether the server has closed an idle connection, as every client checks
// before it reuses one.
func (c *loadConn) closedByPeer() bool {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	closed := true
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		closed = !errors.Is(err, syscall.EAGAIN)
		return true
	})
	return closed || err != nil
}

// roundTrip sends one request and reads its answer; answered says whether any byte of it came.
func (c *loadConn) roundTrip(ctx context.Context, request []byte, want string) (body []byte, answered bool, err error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, false, err
		}
	}
	if _, err := c.Write(request); err != nil {
		return nil, false, err
	}
	if _, err := c.r.Peek(1); err != nil {
		return nil, false, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, true, err
	}
	defer resp.Body.Close()
	c.last = resp.Close
	if body, err = io.ReadAll(resp.Body); err != nil {
		return body, true, err
	}
	return body, true, checkAnswer(resp.StatusCode, body, want)
}
