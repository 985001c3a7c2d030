package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketThread makes sockets in the network namespace of one boot. A socket belongs for good to the
// namespace of the thread that called socket(2), whoever connects it: so one thread lives in the
// namespace, does nothing but socket(2), and dialing stays where Go does it. The thread never
// returns to the host's namespace, it ends.
type socketThread struct {
	requests chan socketRequest
	stop     chan struct{}
	done     chan struct{}
}

type socketRequest struct {
	domain, kind, proto int
	reply               chan<- socketReply // with room for one
}

type socketReply struct {
	fd  int
	err error
}

// newSocketThread starts the thread for the namespace of pid. The caller closes it.
func newSocketThread(pid int) *socketThread {
	s := &socketThread{requests: make(chan socketRequest), stop: make(chan struct{}), done: make(chan struct{})}
	onOwnThread(func() { s.serve(pid) })
	return s
}

func (s *socketThread) close() {
	close(s.stop)
	<-s.done
}

func (s *socketThread) serve(pid int) {
	defer close(s.done)
	broken := enterNetwork(pid)
	for {
		select {
		case r := <-s.requests:
			reply := socketReply{fd: -1, err: broken}
			if broken == nil {
				reply.fd, reply.err = unix.Socket(r.domain, r.kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, r.proto)
				reply.err = os.NewSyscallError("socket", reply.err)
			}
			r.reply <- reply
		case <-s.stop:
			return
		}
	}
}

// enterNetwork moves the calling thread into the network namespace of pid.
func enterNetwork(pid int) error {
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", os.NewSyscallError("setns", err))
	}
	return nil
}

// socket returns a new non-blocking socket, which the caller closes.
func (s *socketThread) socket(domain, kind, proto int) (int, error) {
	reply := make(chan socketReply, 1)
	select {
	case s.requests <- socketRequest{domain, kind, proto, reply}:
		r := <-reply
		return r.fd, r.err
	case <-s.done:
		return -1, errors.New("create socket: the container's network is gone")
	}
}

// replace is a net.Dialer.Control: it puts a socket of the container in the place of the one that
// package net has just made in the host's namespace, under the same descriptor and before anything
// was done with it. So connecting, cancelling and deadlines are package net's, at the price of one
// more socket(2) per connection.
func (s *socketThread) replace(_, _ string, raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) { err = s.replaceFD(int(fd)) }); e != nil {
		return e
	}
	return err
}

func (s *socketThread) replaceFD(fd int) error {
	var opts [3]int
	for i, name := range []int{unix.SO_DOMAIN, unix.SO_TYPE, unix.SO_PROTOCOL} {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, name)
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		opts[i] = v
	}
	inside, err := s.socket(opts[0], opts[1], opts[2])
	if err != nil {
		return err
	}
	defer unix.Close(inside)
	return os.NewSyscallError("dup3", unix.Dup3(inside, fd, unix.O_CLOEXEC))
}

// DialContext connects to addr as a client inside the container would: "127.0.0.1:3000",
// "[::1]:3000", or with network "unix" a path in the container. It follows reboots. Names are
// resolved by the host, so use addresses.
func (c *Container) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	b, err := c.current()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(network, "unix") && strings.HasPrefix(addr, "/") {
		f, err := c.openIn(addr, unix.O_PATH, 0)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		addr = fmt.Sprintf("/proc/self/fd/%d", f.Fd()) // leads to the very socket, however long or linked its path
	}
	// No "happy eyeballs": they would dial in parallel goroutines, which the load figures do not
	// need.
	d := net.Dialer{FallbackDelay: -1, Control: b.sockets.replace}
	return d.DialContext(ctx, network, addr)
}

// clientTimeout ends a request that nobody answers; a test that expects longer ones sets its own.
const clientTimeout = 30 * time.Second

// HTTPClient returns a client that dials inside the container and keeps connections alive. Like
// every Go client it repeats a GET by itself when a kept connection turns out to be closed; to
// count such cases use StartLoad.
func (c *Container) HTTPClient() *http.Client {
	return &http.Client{Timeout: clientTimeout, Transport: &http.Transport{DialContext: c.DialContext, MaxIdleConnsPerHost: 64}}
}

// HTTPClientPerRequest returns a client that makes a new connection for each request.
func (c *Container) HTTPClientPerRequest() *http.Client {
	return &http.Client{Timeout: clientTimeout, Transport: &http.Transport{DialContext: c.DialContext, DisableKeepAlives: true}}
}
