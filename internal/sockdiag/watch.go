package sockdiag

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Watch subscribes to the kernel's messages about destroyed TCP sockets (SKNLGRP_INET_TCP_DESTROY,
// net/core/sock_diag.c). They tell a drain when to count again, and are for drains only: during a
// subscription the kernel makes a message for each TCP socket of the namespace that ends, before it
// filters by port.
//
// Groups and filter belong to the socket, not to the process. So stop the subscription before an
// orderly exit: PID 1 would take the next message for traffic, and start the shim again. A shim
// that is killed during a subscription is started again in this way at once, without its back-off,
// and NewWatch ends the old subscription.
//
// Safe for concurrent use.
type Watch struct {
	mu  sync.Mutex
	f   *os.File
	sub *Subscription // nil while none stands
}

// Subscription ticks when a connection has ended.
type Subscription struct {
	// C gets a tick after one or many sockets with one of the ports were destroyed, or messages
	// were lost (ENOBUFS). It holds one tick, and is closed when the subscription has ended.
	//
	// Connections stop being open in other ways too, without a tick: when the instance closes
	// first, the socket may be in FIN_WAIT1 for minutes before it is destroyed. So wait for a timer
	// beside C.
	C <-chan struct{}

	w    *Watch
	tick chan struct{}
	err  error // of receive; valid once C is closed
	done chan struct{}
}

// NewWatch makes a Watch of a NETLINK_SOCK_DIAG socket, which it owns from then on and sets
// non-blocking; if NewWatch fails the descriptor stays the caller's. It ends a subscription that an
// earlier process left. The socket must not be a Conn's.
func NewWatch(fd int) (*Watch, error) {
	if err := check(fd); err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	if err := unsubscribe(fd); err != nil {
		return nil, err
	}
	// PID 1 sets the mode again each time it passes the socket (NonBlocking=), so nobody else
	// depends on this setting.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("watch sockets: %w", os.NewSyscallError("fcntl", err))
	}
	return &Watch{f: os.NewFile(uintptr(fd), "inet-diag")}, nil
}

// Close ends the subscription, if one stands, and closes the descriptor.
func (w *Watch) Close() error {
	w.mu.Lock()
	sub := w.sub
	w.mu.Unlock()
	var err error
	if sub != nil {
		err = sub.Stop()
	}
	return errors.Join(err, w.f.Close())
}

// Subscribe starts the messages about sockets with one of the local ports, 1 to MaxPorts of them.
// What ended before Subscribe returned gives no tick: count after it. At most one subscription
// stands at a time; the caller stops it.
func (w *Watch) Subscribe(ports []uint16) (*Subscription, error) {
	if err := checkPorts(ports); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sub != nil {
		return nil, errors.New("subscribe to destroyed sockets: subscribed already")
	}
	err := w.f.SetReadDeadline(time.Time{})
	if err == nil {
		err = w.control(func(fd int) error { return subscribe(fd, ports) })
	}
	if err != nil {
		return nil, fmt.Errorf("subscribe to destroyed sockets: %w", err)
	}
	tick := make(chan struct{}, 1)
	w.sub = &Subscription{C: tick, w: w, tick: tick, done: make(chan struct{})}
	go w.sub.receive()
	return w.sub, nil
}

// Stop ends the subscription and returns when nothing is queued any more, with the error that ended
// it before, if any. A second call does nothing but return the same.
func (s *Subscription) Stop() error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.w.sub != s {
		<-s.done
		return s.err
	}
	s.w.sub = nil
	// The read that waits ends by the deadline; unlike a close that leaves the descriptor for the
	// next subscription.
	err := s.w.f.SetReadDeadline(time.Unix(1, 0))
	if err == nil {
		<-s.done
		err = s.w.control(unsubscribe)
	}
	s.err = errors.Join(s.err, err)
	return s.err
}

// receive turns messages into ticks until Stop ends its read. It is the only reader, and Stop waits
// for it.
func (s *Subscription) receive() {
	defer close(s.done)
	defer close(s.tick)
	raw, err := s.w.f.SyscallConn()
	if err != nil {
		s.err = fmt.Errorf("read destroyed sockets: %w", err)
		return
	}
	var buf [1]byte // a message that arrived says all; the rest of it is cut off
	for {
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			_, _, rerr = receive(int(fd), buf[:])
			return !errors.Is(rerr, unix.EAGAIN)
		})
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		case err != nil:
			s.err = fmt.Errorf("read destroyed sockets: %w", err)
			return
		case rerr != nil && !errors.Is(rerr, unix.ENOBUFS):
			s.err = fmt.Errorf("read destroyed sockets: %w", rerr)
			return
		}
		select {
		case s.tick <- struct{}{}:
		default:
		}
	}
}

// control runs f on the descriptor.
func (w *Watch) control(f func(fd int) error) error {
	raw, err := w.f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
