package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/unitgen/unitgen/internal/survey"
)

// Limits of the server. Everybody who can connect may scrape. On loopback that is every user of the
// host.
const (
	maxConnections = 32              // open at a time; more wait in the socket's backlog
	maxScrapes     = 4               // at a time; more are answered with 503. They share one look at the apps
	maxHeader      = 8 << 10         // bytes of a request's header; Prometheus sends some 300
	headerTimeout  = 5 * time.Second // for a request's header
	scrapeTimeout  = 8 * time.Second // for a look at all apps; Prometheus itself waits for 10 s unless told otherwise
	writeTimeout   = 20 * time.Second
	keepAlive      = time.Minute
	fresh          = time.Second // for how long what was gathered is given out again
	endTimeout     = 5 * time.Second
)

// DefaultIdle is how long Serve waits for the next scrape before it returns. It is longer than
// usual scrape intervals, so that most scrapes find the process running.
const DefaultIdle = time.Minute

// Source says where the metrics come from.
type Source struct {
	survey.Source

	// Dial connects to the manager, for one scrape; the returned function ends the connection.
	Dial func(ctx context.Context) (m survey.Manager, hangUp func(), err error)
}

func (s *Source) look(ctx context.Context) ([]survey.App, error) {
	m, hangUp, err := s.Dial(ctx)
	if err != nil {
		return nil, err
	}
	defer hangUp()
	return s.Look(ctx, m)
}

// Server answers scrapes.
type Server struct {
	source *Source
	idle   time.Duration

	mu     sync.Mutex // held while somebody gathers, for whom the others wait
	last   []survey.App
	err    error
	looked time.Time

	activity chan int // +1 for a connection that begins a request, -1 when it ends
}

// NewServer returns a server for one call of Serve. idle is how long the server waits for a scrape;
// zero means DefaultIdle.
func NewServer(source *Source, idle time.Duration) *Server {
	if idle == 0 {
		idle = DefaultIdle
	}
	return &Server{source: source, idle: idle, activity: make(chan int)}
}

// Serve answers on ln, and closes it. It returns when ctx ends, or when nobody has scraped for the
// idle time. PID 1 holds the socket open: later connections wait there for the next process.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bounded := limit(ln, maxConnections)
	server := &http.Server{
		Handler: bounded.crowded(s.handler(ctx)), MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: keepAlive,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(bounded) }() // ends with Shutdown, awaited below
	err := s.await(ctx, ended)
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer stop()
	return errors.Join(err, server.Shutdown(end))
}

// await returns when ctx ends, when there was no request for the idle time, or with the error of
// the listener.
func (s *Server) await(ctx context.Context, ended <-chan error) error {
	idle := time.NewTimer(s.idle)
	defer idle.Stop()
	requests := 0
	for {
		select {
		case n := <-s.activity:
			if requests += n; requests == 0 {
				idle.Reset(s.idle)
			} else {
				idle.Stop()
			}
		case <-idle.C:
			return nil
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return fmt.Errorf("serve metrics: %w", err)
		}
	}
}

// note tells await that a request begins or ends.
func (s *Server) note(ctx context.Context, n int) {
	select {
	case s.activity <- n:
	case <-ctx.Done():
	}
}

func (s *Server) handler(ctx context.Context) http.Handler {
	scrapes := promhttp.HandlerFor(s.registry(ctx), promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, EnableOpenMetrics: true, ErrorHandling: promhttp.HTTPErrorOnError,
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		s.note(ctx, 1)
		defer s.note(ctx, -1)
		scrapes.ServeHTTP(w, r)
	})
	return mux
}

func (s *Server) registry(ctx context.Context) *prometheus.Registry {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(func() ([]survey.App, error) { return s.look(ctx) }))
	return registry
}

// look gathers the values, at most once a second. Requests that come meanwhile wait for the same
// answer.
func (s *Server) look(ctx context.Context) ([]survey.App, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.looked.IsZero() && time.Since(s.looked) < fresh {
		return s.last, s.err
	}
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	s.last, s.err = s.source.look(ctx)
	s.looked = time.Now()
	return s.last, s.err
}

// limited is a listener with a maximum number of open connections.
type limited struct {
	net.Listener
	slots chan struct{}
	ended chan struct{} // closed by Close, for an Accept that waits for a slot
	once  sync.Once
}

func limit(ln net.Listener, n int) *limited {
	return &limited{Listener: ln, slots: make(chan struct{}, n), ended: make(chan struct{})}
}

// crowded makes answers of h close their connections while more than half of all connections are
// open. So clients that keep their connections block others for one request at most.
func (l *limited) crowded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(l.slots) > cap(l.slots)/2 {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.ended:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.ended) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
