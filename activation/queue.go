package activation

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// acceptTimeout bounds the accept of a connection that was seen in the queue, in case that
	// another process with the same socket was quicker.
	acceptTimeout = 100 * time.Millisecond
	// emptyTimeout bounds the emptying of the queue. Full queues take milliseconds; if new
	// connections keep it from getting empty, the balancer still sends them, and the rest is for
	// the next process.
	emptyTimeout = time.Second
)

// queue is a listener that can be stopped without losing what the kernel has queued on it: after
// stop, Accept returns the connections that wait and then http.ErrServerClosed. Closing alone would
// reset them, unless PID 1 or another holds the socket. Whoever accepts closes it.
type queue struct {
	net.Listener
	socket pollable                  // nil: not a socket of package net, stop closes it
	until  atomic.Pointer[time.Time] // nil until stop
}

// pollable is what *net.TCPListener and *net.UnixListener have, and wrappers of listeners have not.
type pollable interface {
	syscall.Conn
	SetDeadline(time.Time) error
}

func newQueue(l net.Listener) *queue {
	socket, _ := l.(pollable)
	return &queue{Listener: l, socket: socket}
}

// stop makes Accept end. A wrapped listener is closed, with the connections in its queue left to
// the other holders of the socket.
func (q *queue) stop() error {
	until := time.Now().Add(emptyTimeout)
	q.until.Store(&until)
	var err error
	if q.socket == nil {
		err = q.Close()
	} else {
		err = q.socket.SetDeadline(time.Unix(1, 0))
	}
	if err != nil && !errors.Is(err, net.ErrClosed) { // closed: it failed before
		return fmt.Errorf("stop accepting: %w", err)
	}
	return nil
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	if q.until.Load() == nil {
		c, err := q.Listener.Accept()
		if err == nil || q.until.Load() == nil {
			return c, err
		}
	}
	if q.socket == nil {
		return nil, http.ErrServerClosed
	}
	return q.acceptQueued()
}

// acceptQueued returns a connection that waits now, or http.ErrServerClosed if none does.
func (q *queue) acceptQueued() (net.Conn, error) {
	for time.Now().Before(*q.until.Load()) {
		waiting, err := pollIn(q.socket)
		if err != nil {
			return nil, err
		}
		if !waiting {
			break
		}
		if err := q.socket.SetDeadline(time.Now().Add(acceptTimeout)); err != nil {
			return nil, err
		}
		c, err := q.Listener.Accept()
		// Past the deadline: another holder took the connection and serves it, or stop had not yet
		// set its own deadline.
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return c, err
		}
	}
	return nil, http.ErrServerClosed
}

// pollIn reports whether a connection waits in the accept queue, without waiting for one: poll(2)
// with a time-out of zero.
func pollIn(socket syscall.Conn) (bool, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return false, err
	}
	var ready int
	var pollErr error
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if ready, pollErr = unix.Poll(fds, 0); !errors.Is(pollErr, unix.EINTR) {
				return
			}
		}
	})
	return ready > 0, errors.Join(err, os.NewSyscallError("poll", pollErr))
}
