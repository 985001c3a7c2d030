package activation

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"net"
	"net/http"
	"time"
)

const (
	// defaultGrace is longer than a busy client thinks between two requests, and short beside a
	// rollout.
	defaultGrace = time.Second
	// defaultDrainTimeout is well below systemd's TimeoutStopSec= of 90 s, so that the end is ours
	// and not SIGKILL.
	defaultDrainTimeout = 30 * time.Second
	// maxSpread is long enough for disconnected clients to return one after another, and short
	// compared with a rollout.
	maxSpread = 5 * time.Second
	// unaskedFor is how long a connection may be open without a request before Serve closes it, as
	// in http.Server.Shutdown.
	unaskedFor = 5 * time.Second
	// readWithin is how long a runnable goroutine may take to read what has come for it.
	readWithin = 100 * time.Millisecond
	// spreadSteps is how often Serve checks how many connections have ended by themselves, while it
	// closes the rest.
	spreadSteps = 100
)

// ServeOptions are the options of Serve. The zero value works.
type ServeOptions struct {
	// Notifier reports the progress of Serve to the service manager. Serve borrows it. Nil reports
	// nothing.
	Notifier *Notifier
	// Grace is how long after the end of ctx new connections are still accepted, and how long a
	// connection must have been idle before Serve closes it. A request that crosses the close on
	// the wire is lost, and HTTP/1.1 cannot prevent that, so Grace must be longer than the pause
	// between two requests of a typical client. Zero means 1 s, less than zero none.
	Grace time.Duration
	// DrainTimeout is the longest time after the end of ctx until Serve returns. Its last fifth, 5
	// s at most, is for closing the remaining connections. Zero means 30 s. TimeoutStopSec= must be
	// longer.
	DrainTimeout time.Duration
}

// Serve serves HTTP on listeners until ctx ends, then drains, and returns nil if no request was cut
// off.
//
// It sends READY=1 once every listener accepts, and WATCHDOG=1 while it runs if the unit has
// WatchdogSec=. When ctx ends it sends STOPPING=1, and then:
//
//   - Every response to a request that arrives from then on carries "Connection: close" (GOAWAY in
//     HTTP/2), so busy clients leave by themselves between two requests.
//   - New connections are accepted for Grace, or until no connection is open, because the balancer
//     may only learn of the end now. Then Serve also accepts the connections in the kernel's queue,
//     and closes the listeners. Later connections wait in the queue of the passed socket, which PID
//     1 holds open for the next process.
//   - Connections that were idle for Grace are closed, and after 5 s those that have never sent a
//     whole request. Requests in flight finish, and so does a first request that has arrived in part.
//   - Near the end of DrainTimeout the remaining connections are cut off, and Serve returns an
//     error. The closes are spread evenly over the last fifth of that time, the last 5 s at most, so
//     that the clients do not all connect again at once.
//   - Hijacked connections (WebSocket) belong to their handler. server.RegisterOnShutdown can ask
//     the handler to end them once idle connections are closed. Serve does not wait for them. When
//     no request is left it closes the hijacked connections that are still open, spread evenly over
//     as much time. That needs connections of this package or of package net, also below TLS.
//
// Serve owns server and listeners, closes both, and wraps server.Handler and server.ConnState: set
// everything before and use neither afterwards. If server.TLSConfig is set, Serve serves TLS with
// the certificates there.
//
// If one listener fails, Serve drains as at the end of ctx, and returns the error of the listener.
// Errors that Serve survives, such as a watchdog message that was not sent, go to server.ErrorLog.
func Serve(ctx context.Context, server *http.Server, listeners []net.Listener, options ServeOptions) error {
	if len(listeners) == 0 {
		return errors.New("serve http: no listeners")
	}
	if options.Grace == 0 {
		options.Grace = defaultGrace
	}
	if options.DrainTimeout == 0 {
		options.DrainTimeout = defaultDrainTimeout
	}
	if mark, err := mark(); err == nil { // without it a drain waits longer
		defer mark.Close()
	}
	s := &serving{
		server:  server,
		options: options,
		conns:   watchConnections(server),
		ended:   make(chan error, len(listeners)),
	}
	return s.run(ctx, listeners)
}

// serving is one call of Serve. Only the goroutine in run reads and writes it; accept goroutines
// report through ended, and connections through conns.
type serving struct {
	server  *http.Server
	options ServeOptions
	conns   *connections
	queues  []*queue
	ended   chan error       // one message of every accept goroutine, when it ends
	running int              // accept goroutines that have not sent it yet
	ping    <-chan time.Time // nil: no watchdog
	failed  error            // why the drain began, if not by ctx
}

func (s *serving) run(ctx context.Context, listeners []net.Listener) error {
	if interval := s.options.Notifier.WatchdogInterval(); interval > 0 {
		ticker := time.NewTicker(max(interval/2, time.Millisecond))
		defer ticker.Stop()
		s.ping = ticker.C
	}
	serve := s.server.Serve
	if s.server.TLSConfig != nil { // asked here, once: Server.Serve sets it
		serve = func(l net.Listener) error { return s.server.ServeTLS(l, "", "") }
	}
	for _, l := range listeners {
		q := newQueue(l)
		s.queues = append(s.queues, q)
		s.running++
		go accept(serve, q, s.ended)
	}
	if err := s.options.Notifier.Ready(); err != nil {
		s.failed = fmt.Errorf("serve http: %w", err)
	}
	s.await(ctx.Done(), nil, func() bool { return ctx.Err() != nil || s.failed != nil })
	return errors.Join(s.failed, s.drain())
}

// accept runs one accept loop. It ends when the queue was stopped or its listener fails, and closes
// it.
func accept(serve func(net.Listener) error, q *queue, ended chan<- error) {
	ended <- serve(q)
}

func (s *serving) drain() error {
	begin := s.conns.drain()
	deadline := begin.Add(s.options.DrainTimeout - s.spread()) // of requests
	if err := s.options.Notifier.Stopping(); err != nil {
		s.logf("activation: %v, ignoring", err)
	}

	s.awaitUntil(earlier(begin.Add(s.options.Grace), deadline), s.conns.none)

	for _, q := range s.queues {
		if err := q.stop(); err != nil {
			s.logf("activation: %v, ignoring", err)
		}
	}
	s.await(nil, nil, func() bool { return s.running == 0 })

	// A response that was under way when the drain began did not say "close", so its client may use
	// the connection again. Wait for each such client as long as for those that were idle at the
	// beginning.
	for !s.conns.none() {
		quiet := earlier(s.conns.idleSince().Add(s.options.Grace), deadline)
		if !time.Now().Before(quiet) {
			break
		}
		s.awaitUntil(quiet, s.conns.none)
	}
	s.awaitFirst(deadline)
	s.awaitRead(deadline)
	s.shutdown(deadline)
	return s.cutOff(begin.Add(s.options.DrainTimeout))
}

// awaitFirst waits until no connection is in the middle of its first request. http.Server.Shutdown
// would leave such a connection open, and drop the request when its header is complete: a client
// that sends it in two packets would get no answer.
func (s *serving) awaitFirst(deadline time.Time) {
	for {
		last, found := s.conns.unaskedUntil()
		last = earlier(last, deadline)
		if !found || !time.Now().Before(last) {
			return
		}
		s.awaitUntil(last, func() bool {
			_, found := s.conns.unaskedUntil()
			return !found
		})
	}
}

// awaitRead waits until the requests that have come have reached their handlers. A process that was
// held up (SIGSTOP, a busy machine) runs its timers before it reads, and http.Server.Shutdown would
// drop requests that are there. What a handler leaves unread is no reason to wait longer.
func (s *serving) awaitRead(deadline time.Time) {
	s.awaitUntil(earlier(time.Now().Add(readWithin), deadline), func() bool { return !s.conns.arriving() })
}

// shutdown closes idle connections and waits for the others. http.Server.Shutdown looks every half
// second; the end of the last connection ends it at once. It returns nil already when it has closed
// the idle ones, before their goroutines have noticed.
func (s *serving) shutdown(deadline time.Time) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	finished := make(chan struct{})
	go shutdownServer(ctx, s.server, finished)
	s.await(finished, nil, func() bool {
		if s.conns.none() {
			cancel()
		}
		return closed(finished)
	})
	s.awaitUntil(deadline, s.conns.none)
}

// spread is the time over which the closes of the remaining connections are spread.
func (s *serving) spread() time.Duration { return min(s.options.DrainTimeout/5, maxSpread) }

// cutOff closes the remaining connections: the number of connections that may be open falls evenly,
// and is zero at end.
func (s *serving) cutOff(end time.Time) error {
	began := time.Now()
	spread := min(s.spread(), end.Sub(began))
	_, all := s.conns.closeDownTo(math.MaxInt)
	cut := 0
	for left := all; left > 0; {
		// Serve gets no event when a handler closes its hijacked connection.
		s.awaitUntil(time.Now().Add(spread/spreadSteps), func() bool { return false })
		keep := 0
		if rest := spread - time.Since(began); rest > 0 {
			keep = int(math.Ceil(float64(all) * float64(rest) / float64(spread)))
		}
		var busy int
		busy, left = s.conns.closeDownTo(keep)
		cut += busy
	}
	if cut > 0 {
		return fmt.Errorf("drain http: %d connections still busy after %s", cut, s.options.DrainTimeout)
	}
	return nil
}

// shutdownServer needs no result: whether connections are left is what counts, and the listeners
// are closed already.
func shutdownServer(ctx context.Context, server *http.Server, finished chan<- struct{}) {
	defer close(finished)
	_ = server.Shutdown(ctx)
}

func (s *serving) awaitUntil(t time.Time, done func() bool) {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	s.await(nil, timer.C, done)
}

// await keeps the watchdog fed until done says true or the timer fires. done is asked again
// whenever an accept loop ended or the connections changed, and when wake is closed, upon which it
// must say true.
func (s *serving) await(wake <-chan struct{}, timer <-chan time.Time, done func() bool) {
	for !done() {
		select {
		case <-wake:
		case <-timer:
			return
		case <-s.conns.changed:
		case err := <-s.ended:
			s.running--
			if !errors.Is(err, http.ErrServerClosed) {
				s.failed = errors.Join(s.failed, fmt.Errorf("serve http: %w", err))
			}
		case <-s.ping:
			if err := s.options.Notifier.Watchdog(); err != nil {
				s.logf("activation: %v, ignoring", err)
			}
		}
	}
}

func (s *serving) logf(format string, args ...any) {
	if s.server.ErrorLog == nil {
		log.Printf(format, args...) // as net/http does
		return
	}
	s.server.ErrorLog.Printf(format, args...)
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
