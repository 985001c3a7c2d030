// Package agent tells load balancers on other machines how an app is on this one: HAProxy by its
// agent-check protocol, others by HTTP, on one listener.
//
// It knows what the shim says of the app (Ask) and nothing else. What it tells is State, the same
// to everybody who can connect. A client costs one goroutine for at most clientTime, whatever it
// does or leaves undone, and at most maxClients are served at a time. One that has not said all it
// has to say makes room for others (crowd.go). The shim is asked at most once each askEvery, by
// however many clients.
//
// It is not for statistics: a state that changes a hundred times a second is told five times.
//
// Source: agent-check in HAProxy's configuration manual, tcpcheck_agent_expect_reply in HAProxy's
// src/tcpcheck.c.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// State is all that a client is told.
type State struct {
	App       string `json:"app"`
	State     string `json:"state"`     // a word below
	Weight    int    `json:"weight"`    // the share of this host that can serve now, 0 to 100 percent
	Instances int    `json:"instances"` // that the app has here
	Up        int    `json:"up"`        // of them, those that take connections
}

// Words of State.State. The first four are the shim's.
const (
	Up      = "up"      // an instance takes connections
	Drain   = "drain"   // the host is drained: what comes is served, and nothing more shall come
	Maint   = "maint"   // the app stops
	Down    = "down"    // no instance takes connections
	Unknown = "unknown" // the shim does not answer, and has not for keep
)

const (
	// askEvery bounds how often the shim is asked. HAProxy asks once each two seconds by default.
	askEvery = 200 * time.Millisecond
	// answerTime is how long the shim may take: with hello, less than a load balancer waits (2 s in
	// what unitgen export prints). One that was killed is back within a quarter of a second.
	answerTime = time.Second
	// keep is how long the last answer stands for one that does not come. Connections are served
	// without a shim, so one that is just being restarted must not take its host out of service.
	keep = 15 * time.Second
	// hello is how long a client may take to say that it speaks HTTP. HAProxy says nothing unless
	// agent-send is set, and gets its answer after this. A client that speaks first sends its
	// request with the last packet of the handshake, or right behind it.
	hello = 250 * time.Millisecond
	// requestTime bounds a request from the connection to its last byte: load balancers send theirs
	// in one packet, which the kernel of a host at the other end of the world sends again after a
	// second.
	requestTime = 2 * time.Second
	// clientTime bounds a client from its connection to its end.
	clientTime = 5 * time.Second
	// maxClients bounds the clients at a time; further ones wait in the socket's backlog.
	maxClients = 64
	// maxOfPeer bounds those of one peer that have not said all yet. A load balancer has one at a
	// time for each of its processes, and several load balancers may share an address.
	maxOfPeer = 8
)

// ErrIdle is Serve's result when no client came for Server.Idle.
var ErrIdle = errors.New("no client came")

// Server answers the clients of one app.
type Server struct {
	App string
	// Ask asks the shim, until ctx ends. It is called by one goroutine at a time.
	Ask func(ctx context.Context) (State, error)
	// Idle is after what time without a client Serve ends; zero: never.
	Idle time.Duration
	Log  *slog.Logger

	mu    sync.Mutex // held while the shim is asked: the others wait for the same answer
	last  State
	at    time.Time // when last was told
	tried time.Time // when the shim was asked last
}

// Serve answers clients of ln until ctx ends, which is no error, until no client came for s.Idle,
// which is ErrIdle, or until accepting fails. It closes ln and returns when the last client is
// gone.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()
	crowd := newCrowd()
	for {
		conn, err := s.accept(ln)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrIdle):
			return err
		case err != nil:
			return fmt.Errorf("accept client: %w", err)
		}
		c := crowd.admit(conn)
		clients.Go(func() {
			defer c.leave()
			s.serve(ctx, c)
		})
	}
}

// accept waits for a client, for s.Idle at most.
func (s *Server) accept(ln net.Listener) (net.Conn, error) {
	bounded, ok := ln.(interface{ SetDeadline(time.Time) error })
	if ok && s.Idle > 0 {
		if err := bounded.SetDeadline(time.Now().Add(s.Idle)); err != nil {
			return nil, err
		}
	}
	conn, err := ln.Accept()
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		return nil, ErrIdle
	}
	return conn, err
}

// state is how the app is: what the shim says, or has said within askEvery; what it has said within
// keep if it does not answer; else Unknown.
func (s *Server) state(ctx context.Context) State {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.tried) >= askEvery {
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		state, err := s.Ask(ctx)
		s.tried = time.Now()
		if err == nil {
			s.last, s.at = state, s.tried
		} else if s.tried.Sub(s.at) >= keep {
			s.Log.Warn("ask the balancer, ignoring", "error", err)
		}
	}
	if s.at.IsZero() || time.Since(s.at) >= keep {
		return State{App: s.App, State: Unknown}
	}
	return s.last
}
