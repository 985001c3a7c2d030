package activation

import (
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// connections knows what the drain needs to know of a server's connections. It costs two atomic additions per
// connection and two atomic loads per request; nothing is kept per connection.
type connections struct {
	open     atomic.Int64
	draining atomic.Bool
	idle     atomic.Int64 // when a connection last became idle, nanoseconds since began; kept while draining
	began    time.Time    // of the drain
	changed  chan struct{}
}

// watchConnections hooks into server, before what is set there already.
func watchConnections(server *http.Server) *connections {
	c := &connections{changed: make(chan struct{}, 1)}
	next := server.ConnState
	server.ConnState = func(conn net.Conn, state http.ConnState) {
		c.note(state)
		if next != nil {
			next(conn, state)
		}
	}
	server.Handler = &handler{conns: c, next: server.Handler}
	return c
}

func (c *connections) none() bool { return c.open.Load() == 0 }

// drain makes every later response carry "Connection: close" and returns the time of the call.
func (c *connections) drain() time.Time {
	c.began = time.Now()
	c.draining.Store(true)
	return c.began
}

// idleSince returns when the connection that became idle last did so, at the earliest the beginning of the drain.
func (c *connections) idleSince() time.Time {
	return c.began.Add(time.Duration(c.idle.Load()))
}

func (c *connections) note(state http.ConnState) {
	switch state {
	case http.StateNew:
		c.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		c.open.Add(-1)
	}
	if !c.draining.Load() {
		return
	}
	if state == http.StateIdle {
		c.idle.Store(int64(time.Since(c.began)))
	}
	select {
	case c.changed <- struct{}{}:
	default: // a look is due already
	}
}

// handler asks clients to leave while draining.
//
// Server.SetKeepAlivesEnabled(false) would do so too, for responses under way as well, but it closes idle connections
// at once, and with them the requests that are just then on the wire.
type handler struct {
	conns *connections
	next  http.Handler
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
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
