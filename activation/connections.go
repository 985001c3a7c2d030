package activation

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"weak"

	"golang.org/x/sys/unix"
)

// connections has the state of a server's connections that the drain needs. It costs one entry of a
// map and one value of a context per connection, and one look-up of that value and three atomic
// loads per request.
type connections struct {
	draining atomic.Bool
	idle     atomic.Int64 // when a connection last became idle, nanoseconds since began; kept while draining
	began    time.Time    // of the drain
	changed  chan struct{}

	mu       sync.Mutex
	open     map[net.Conn]*opened
	hijacked map[any]func() net.Conn // by weak pointer; nil when nobody has the connection any more
}

// opened is the state of an open connection.
type opened struct {
	at    time.Time   // when it was accepted
	asked atomic.Bool // its first request has come to the handler
	// arriving says in a drain that bytes have come which no handler has got yet. connections.mu
	// guards it.
	arriving bool
}

// openedKey is the key of a connection's *opened in the contexts of its requests.
type openedKey struct{}

// watchConnections adds hooks to server, before hooks that are set already.
func watchConnections(server *http.Server) *connections {
	c := &connections{
		changed:  make(chan struct{}, 1),
		open:     make(map[net.Conn]*opened),
		hijacked: make(map[any]func() net.Conn),
	}
	next := server.ConnState
	server.ConnState = func(conn net.Conn, state http.ConnState) {
		c.note(conn, state)
		if next != nil {
			next(conn, state)
		}
	}
	inner := server.ConnContext
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if inner != nil {
			ctx = inner(ctx, conn)
		}
		return c.accepted(ctx, socketOf(conn))
	}
	server.Handler = &handler{conns: c, next: server.Handler}
	return c
}

func (c *connections) none() bool { return c.count() == 0 }

// count is the number of open connections, without those that were hijacked.
func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// accepted notes a connection before net/http reads from it.
func (c *connections) accepted(ctx context.Context, conn net.Conn) context.Context {
	o := &opened{at: time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[conn] = o
	return context.WithValue(ctx, openedKey{}, o)
}

// unaskedUntil is when the last of the connections that have not sent their first request yet has
// been open for unaskedFor; false if there are none.
func (c *connections) unaskedUntil() (last time.Time, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.open {
		if until := o.at.Add(unaskedFor); !o.asked.Load() && until.After(last) {
			last = until
		}
	}
	return last, !last.IsZero()
}

// drain makes every later response carry "Connection: close" and returns the time of the call.
func (c *connections) drain() time.Time {
	c.began = time.Now()
	c.draining.Store(true)
	return c.began
}

// idleSince returns when the connection that became idle last did so, at the earliest the beginning
// of the drain.
func (c *connections) idleSince() time.Time {
	return c.began.Add(time.Duration(c.idle.Load()))
}

func (c *connections) note(conn net.Conn, state http.ConnState) {
	c.remember(socketOf(conn), state)
	if !c.draining.Load() {
		return
	}
	switch state {
	case http.StateIdle:
		c.idle.Store(int64(time.Since(c.began)))
		c.arrives(socketOf(conn), false)
	case http.StateActive: // the request is read, and its handler comes next
		c.arrives(socketOf(conn), true)
	}
	c.change()
}

// change has the drain look again.
func (c *connections) change() {
	select {
	case c.changed <- struct{}{}:
	default: // a look is due already
	}
}

func (c *connections) remember(conn net.Conn, state http.ConnState) {
	if state == http.StateNew || state == http.StateActive || state == http.StateIdle {
		return // accepted has noted it
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
	if state != http.StateHijacked {
		return
	}
	switch conn := conn.(type) { // a weak pointer needs the type
	case *net.TCPConn:
		rememberHijacked(c, conn)
	case *net.UnixConn:
		rememberHijacked(c, conn)
	case *handedConn:
		rememberHijacked(c, conn)
	}
}

// pointerConn is a connection of which a weak pointer can be made.
type pointerConn[T any] interface {
	*T
	net.Conn
}

// rememberHijacked keeps a connection that net/http forgets. Its handler reports to nobody when it
// closes the connection, so it is kept while a reference exists. A wrapper would report the close,
// but would prevent splice(2) and sendfile(2).
func rememberHijacked[T any, P pointerConn[T]](c *connections, conn P) {
	pointer := weak.Make((*T)(conn))
	c.hijacked[pointer] = func() net.Conn {
		if conn := pointer.Value(); conn != nil {
			return P(conn)
		}
		return nil
	}
	runtime.AddCleanup((*T)(conn), c.forget, any(pointer))
}

func (c *connections) forget(pointer any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.hijacked, pointer)
}

// closeDownTo closes connections until at most keep are open, those with requests first. It returns
// how many requests it cut off, and how many connections are left, including hijacked ones.
func (c *connections) closeDownTo(keep int) (cut, left int) {
	requests, hijacked := c.leftOpen()
	left = len(requests) + len(hijacked)
	for i, conn := range append(requests, hijacked...) {
		if left <= keep {
			break
		}
		left--
		if i < len(requests) {
			cut++
			c.remember(conn, http.StateClosed) // its handler may take long to notice
		}
		_ = conn.Close() // closed meanwhile: as well
	}
	return cut, left
}

func (c *connections) leftOpen() (requests, hijacked []net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		requests = append(requests, conn)
	}
	for _, get := range c.hijacked {
		if conn := get(); conn != nil && isOpen(conn.(syscall.Conn)) {
			hijacked = append(hijacked, conn)
		}
	}
	return requests, hijacked
}

// arriving says whether a request has come on an open connection and has not reached its handler.
// http.Server.Shutdown takes a connection for idle before the request is read, and net/http drops a
// request that it has read when the shutdown begins.
func (c *connections) arriving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := false
	for conn, o := range c.open {
		if conn, ok := conn.(syscall.Conn); ok && unread(conn) > 0 {
			o.arriving = true
		}
		found = found || o.arriving
	}
	return found
}

// arrives notes whether a request has come on a connection and has not reached its handler.
func (c *connections) arrives(conn net.Conn, arriving bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.open[conn]; o != nil {
		o.arriving = arriving
	}
}

// handles notes that a request of a connection has reached its handler.
func (c *connections) handles(o *opened) {
	c.mu.Lock()
	o.arriving = false
	c.mu.Unlock()
	c.change()
}

// unread is how many bytes wait in a socket: SIOCINQ of tcp(7) and unix(7). It is zero for a
// connection that is closed.
func unread(conn syscall.Conn) (n int) {
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return n
}

func isOpen(conn syscall.Conn) bool {
	raw, err := conn.SyscallConn()
	return err == nil && raw.Control(func(uintptr) {}) == nil
}

// socketOf is the connection below TLS: to close it does not wait for a client that reads nothing.
func socketOf(conn net.Conn) net.Conn {
	if outer, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return outer.NetConn()
	}
	return conn
}

// handler asks clients to leave while draining.
//
// Server.SetKeepAlivesEnabled(false) would do so too, for responses under way as well, but it
// closes idle connections at once, and with them the requests that are just then on the wire.
type handler struct {
	conns *connections
	next  http.Handler
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if o, ok := r.Context().Value(openedKey{}).(*opened); ok {
		if !o.asked.Load() { // a store would cost each request more
			o.asked.Store(true)
		}
		if h.conns.draining.Load() {
			h.conns.handles(o)
		}
	}
	// The Connection header of a protocol upgrade belongs to the upgrade.
	if h.conns.draining.Load() && r.Header.Get("Upgrade") == "" {
		w.Header().Set("Connection", "close")
	}
	if h.next == nil {
		http.DefaultServeMux.ServeHTTP(w, r)
		return
	}
	h.next.ServeHTTP(w, r)
}
