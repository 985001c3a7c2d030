package handoff_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/steer"
)

// limit ends waits that cannot end.
const limit = 30 * time.Second

// front is a public listener with a dispatcher behind it.
type front struct {
	*handoff.Dispatcher
	addr      net.Addr
	fd        int
	receivers bool
	changed   chan struct{}
	dir       string
	stop      func()                 // of the dispatcher
	counted   atomic.Pointer[func()] // what happens when the dispatcher has counted who waits
}

// open opens a public listener and a dispatcher that runs until the test ends.
func open(t testing.TB, network, address string) *front {
	t.Helper()
	return openFor(t, network, address, false)
}

// openFor is open, also for instances that are Receivers.
func openFor(t testing.TB, network, address string, receivers bool) *front {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	f := &front{addr: ln.Addr(), receivers: receivers, changed: make(chan struct{}, 1), dir: t.TempDir()}
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { f.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) })
	if err != nil {
		t.Fatal(err)
	}
	f.run(t)
	return f
}

// run starts a dispatcher, in place of the one before, which ends as if killed.
func (f *front) run(t testing.TB) {
	t.Helper()
	if f.stop != nil {
		f.stop()
	}
	d, err := handoff.New(handoff.Options{
		Listeners: []int{f.fd}, Receivers: f.receivers, Waiting: f.waiting,
		Changed: func() {
			select {
			case f.changed <- struct{}{}:
			default:
			}
		},
		Log: slog.New(slog.NewTextHandler(logWriter{t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(f.stop)
	f.Dispatcher = d
}

func (f *front) waiting(fd int) (n int, exact bool, err error) {
	n, exact, err = waiting(fd)
	if happens := f.counted.Load(); happens != nil {
		(*happens)()
	}
	return n, exact, err
}

// waiting is for TCP exact, for unix sockets whether there is any.
func waiting(fd int) (n int, exact bool, err error) {
	if n, _, err = steer.Queue(fd); err == nil {
		return n, true, nil
	}
	n, err = sock.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n, false, err
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// instance is the program's side.
type instance struct {
	net.Listener
	id   int
	door *net.UnixAddr
}

// newInstance makes a listener as PID 1 passes it, and takes it through package activation.
func newInstance(t testing.TB, f *front, id int) *instance {
	t.Helper()
	in := &instance{id: id, door: &net.UnixAddr{Name: filepath.Join(f.dir, fmt.Sprint(id)), Net: "unixpacket"}}
	door, err := net.ListenUnix("unixpacket", in.door)
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	door.SetUnlinkOnClose(false)
	raw, err := door.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD, 100) }) // not close-on-exec: passed
	if err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": activation.HandoffName}
	passed, err := activation.Env{
		Lookup: func(k string) (string, bool) { v, ok := environment[k]; return v, ok },
		Unset:  func(string) error { return nil }, PID: 1, FirstFD: fd,
	}.Inherit()
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := passed.AllListeners()
	if err != nil {
		t.Fatal(err)
	}
	in.Listener = listeners[0]
	t.Cleanup(func() { in.Close() })
	return in
}

// dial makes a channel to the instance.
func (in *instance) dial(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: in.door.Name})
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// serve answers with the instance's number and the peer's address on each line that comes, until
// the listener is closed.
func (in *instance) serve(t testing.TB) {
	var conns sync.WaitGroup
	var open []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := in.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			open = append(open, conn)
			conns.Go(func() { in.answer(conn) })
		}
	}()
	t.Cleanup(func() {
		in.Close()
		<-done
		for _, conn := range open {
			conn.Close()
		}
		conns.Wait()
	})
}

func (in *instance) answer(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		fmt.Fprintln(conn, in.id, conn.RemoteAddr(), conn.LocalAddr())
	}
}

// start makes instances that serve, and waits until all of them can.
func (f *front) start(t testing.TB, s balance.Strategy, n int) []*instance {
	t.Helper()
	var all []*instance
	var ring []uint16
	for id := 1; id <= n; id++ {
		in := newInstance(t, f, id)
		in.serve(t)
		if err := f.Attach(id, in.dial(t)); err != nil {
			t.Fatal(err)
		}
		all = append(all, in)
		ring = append(ring, uint16(id))
	}
	f.SetRing(s, ring)
	for _, in := range all {
		f.await(t, func() bool { return f.Stat(in.id).Ready })
	}
	return all
}

// await waits until the dispatcher says so.
func (f *front) await(t testing.TB, done func() bool) {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	look := time.NewTicker(time.Millisecond) // counts change without a call of Changed
	defer look.Stop()
	for !done() {
		select {
		case <-f.changed:
		case <-look.C:
		case <-timer.C:
			t.Fatal("it did not come to be")
		}
	}
}

// client is an open connection.
type client struct {
	net.Conn
	r *bufio.Reader
}

func (f *front) connect(t testing.TB) *client {
	t.Helper()
	conn, err := net.Dial(f.addr.Network(), f.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(limit))
	return &client{conn, bufio.NewReader(conn)}
}

// ask sends a line and returns who answered, and what address that one sees.
func (c *client) ask(t testing.TB) (id int, peer string) {
	t.Helper()
	if _, err := io.WriteString(c, "?\n"); err != nil {
		t.Fatal(err)
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	fmt.Sscan(line, &id, &peer)
	return id, peer
}
