package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// load is closed-loop HTTP load of some clients. All run in one loop over non-blocking sockets: what a client costs is taken
// from the same processors as what is measured, and makes all ratios look smaller.
type load struct {
	span      time.Duration
	clients   int
	keepAlive bool
}

// result is what one turn of load has seen.
type result struct {
	ok, failed int
	elapsed    time.Duration
	pids       map[string]*int // answers by process, of kept connections: connections
}

// spread is the fewest and the most connections of an instance.
func (r result) spread() (s [2]int) {
	first := true
	for _, n := range r.pids {
		if first {
			s = [2]int{*n, *n}
		}
		first = false
		s[0], s[1] = min(s[0], *n), max(s[1], *n)
	}
	return s
}

// loop is one turn of a load.
type loop struct {
	load
	epoll   int
	address unix.SockaddrInet4
	all     []*client
	result  result
}

// client makes one request after another, each on a connection of its own or all on one.
type client struct {
	source  unix.SockaddrInet4 // its own, so that the ports of one address do not run out in TIME_WAIT
	fd      int                // negative: none
	began   time.Time          // of the request
	asked   bool               // the request is sent
	again   bool               // it is not the connection's first
	watched uint32             // events that epoll watches for
	answer  [2048]byte
	n       int // bytes of answer
}

var request = []byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")

// hung is how long an answer may be out when a turn ends.
const hung = time.Second

// put loads address for l.span, or until ctx ends.
func (l load) put(ctx context.Context, address string) (result, error) {
	to, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return result{}, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return result{}, os.NewSyscallError("epoll_create1", err)
	}
	defer unix.Close(epoll)
	lo := &loop{load: l, epoll: epoll, address: unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}}
	lo.result.pids = make(map[string]*int)
	began := time.Now()
	for i := range l.clients {
		c := &client{fd: -1, source: unix.SockaddrInet4{Addr: [4]byte{127, 1, byte(i / 250), byte(i%250 + 1)}}}
		lo.all = append(lo.all, c)
		lo.start(i)
	}
	err = lo.run(ctx, began.Add(l.span))
	lo.result.elapsed = time.Since(began)
	for _, c := range lo.all {
		if c.fd >= 0 && time.Since(c.began) > hung {
			lo.result.failed++
		}
		c.close()
	}
	return lo.result, err
}

// run takes what comes until the turn ends.
func (lo *loop) run(ctx context.Context, end time.Time) error {
	events := make([]unix.EpollEvent, 64)
	for ctx.Err() == nil {
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		n, err := unix.EpollWait(lo.epoll, events, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:max(n, 0)] {
			lo.goOn(int(e.Fd))
		}
	}
	return nil
}

// start makes a connection of client i, and sends its request: on loopback it is there at once.
func (lo *loop) start(i int) {
	c := lo.all[i]
	c.began, c.again, c.watched = time.Now(), false, 0
	var err error
	if c.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err == nil {
		err = unix.SetsockoptInt(c.fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}
	if err == nil {
		err = unix.Bind(c.fd, &c.source)
	}
	if err == nil {
		if err = unix.Connect(c.fd, &lo.address); errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
	}
	if err == nil {
		err = lo.ask(i)
	}
	if err != nil {
		lo.fail(i) // and this client does nothing more: nobody listens there
	}
}

// fail gives a connection up.
func (lo *loop) fail(i int) {
	lo.result.failed++
	lo.all[i].close()
}

func (c *client) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
	}
	c.fd = -1
}

// ask sends a request, or watches for when it can.
func (lo *loop) ask(i int) error {
	c := lo.all[i]
	c.n, c.asked = 0, false
	_, err := unix.Write(c.fd, request)
	switch {
	case err == nil:
		c.asked = true
		return lo.watch(i, unix.EPOLLIN)
	case errors.Is(err, unix.EAGAIN):
		return lo.watch(i, unix.EPOLLOUT)
	}
	return err
}

func (lo *loop) watch(i int, events uint32) error {
	c := lo.all[i]
	if c.watched == events {
		return nil
	}
	how := unix.EPOLL_CTL_MOD
	if c.watched == 0 {
		how = unix.EPOLL_CTL_ADD
	}
	c.watched = events
	return unix.EpollCtl(lo.epoll, how, c.fd, &unix.EpollEvent{Events: events, Fd: int32(i)})
}

// goOn deals with an event of client i.
func (lo *loop) goOn(i int) {
	c := lo.all[i]
	done, err := false, error(nil)
	if !c.asked {
		err = lo.ask(i)
	} else {
		done, err = c.read()
	}
	switch {
	case err != nil:
		lo.fail(i)
		lo.start(i)
	case done:
		lo.answered(i)
	}
}

// answered counts an answer and makes the next request.
func (lo *loop) answered(i int) {
	c := lo.all[i]
	lo.result.ok++
	if !c.again {
		body := c.answer[bytes.Index(c.answer[:c.n], headEnd)+len(headEnd) : c.n]
		n := lo.result.pids[string(body)]
		if n == nil {
			n = new(int)
			lo.result.pids[string(body)] = n
		}
		*n++
	}
	if !lo.keepAlive {
		c.close()
		lo.start(i)
		return
	}
	c.began, c.again = time.Now(), true
	if lo.ask(i) != nil {
		lo.fail(i)
		lo.start(i)
	}
}

var headEnd = []byte("\r\n\r\n")

// read takes what has come, and says whether the answer is whole.
func (c *client) read() (done bool, err error) {
	n, err := unix.Read(c.fd, c.answer[c.n:])
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case err != nil:
		return false, err
	case n == 0:
		return false, errors.New("the connection has ended, or the answer is too long")
	}
	c.n += n
	head, body, ok := bytes.Cut(c.answer[:c.n], headEnd)
	if !ok {
		return false, nil
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return false, fmt.Errorf("the answer is %.40q", head)
	}
	length, err := contentLength(head)
	return len(body) == length, err
}

// contentLength is the length that a head says.
func contentLength(head []byte) (int, error) {
	for len(head) > 0 {
		var line []byte
		line, head, _ = bytes.Cut(head, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			return strconv.Atoi(string(bytes.TrimSpace(value)))
		}
	}
	return 0, errors.New("the answer has no length")
}
