package sockdiag

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func watch(t *testing.T) *Watch {
	t.Helper()
	fd, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWatch(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// reset opens a connection and ends it without TIME_WAIT.
func reset(t *testing.T, ln net.Listener, network string) {
	t.Helper()
	client := dial(t, ln, network)
	server := accept(t, ln)
	if err := client.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	client.Close()
	server.Close()
}

func tick(t *testing.T, sub *Subscription) {
	t.Helper()
	select {
	case _, ok := <-sub.C:
		if !ok {
			t.Fatalf("subscription ended: %v", sub.Stop())
		}
	case <-time.After(10 * time.Second):
		t.Fatal("timeout: no tick")
	}
}

func TestWatchTicks(t *testing.T) {
	w := watch(t)
	ln := listen(t, "tcp4", "127.0.0.1:0")
	networks := map[string]net.Listener{"tcp4": ln}
	if ln6, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		t.Cleanup(func() { ln6.Close() })
		networks["tcp6"] = ln6
	}
	var ports []uint16
	for _, ln := range networks {
		ports = append(ports, port(ln))
	}
	for range 2 { // a second subscription works as the first did
		for network, ln := range networks {
			sub, err := w.Subscribe(ports)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Subscribe(ports); err == nil {
				t.Error("second subscription: no error")
			}
			reset(t, ln, network)
			tick(t, sub)
			if err := sub.Stop(); err != nil {
				t.Error(err)
			}
			for range sub.C {
			} // closed
			if err := sub.Stop(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestWatchFilter reads the messages themselves: none is about another port.
func TestWatchFilter(t *testing.T) {
	fd, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ours, other := listen(t, "tcp4", "127.0.0.1:0"), listen(t, "tcp4", "127.0.0.1:0")
	if err := subscribe(fd, []uint16{1, port(ours)}); err != nil {
		t.Fatal(err)
	}
	const each = 50
	for range each {
		reset(t, other, "tcp4")
		reset(t, ours, "tcp4")
	}
	buf := make([]byte, 4096)
	for got := 0; got < each; got++ {
		var n int
		eventually(t, "messages", func() bool {
			n, _, err = receive(fd, buf)
			return !errors.Is(err, unix.EAGAIN)
		})
		if err != nil || n < eventPort+2 {
			t.Fatalf("message of %d bytes, %v", n, err)
		}
		if p := binary.BigEndian.Uint16(buf[eventPort:]); p != port(ours) {
			t.Fatalf("message about port %d, want %d", p, port(ours))
		}
	}
	if err := unsubscribe(fd); err != nil {
		t.Fatal(err)
	}
}

// TestWatchOverrun: lost messages are a tick, and the next ones still come.
func TestWatchOverrun(t *testing.T) {
	fd, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		t.Fatal(err)
	}
	ln := listen(t, "tcp4", "127.0.0.1:0")
	if err := subscribe(fd, []uint16{port(ln)}); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		reset(t, ln, "tcp4")
	}
	eventually(t, "the queue runs over", func() bool {
		p := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(p, 0)
		return err == nil && p[0].Revents&unix.POLLERR != 0
	})
	// What a killed shim leaves: subscribed, overrun. First the reader alone, then NewWatch.
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(dup, true); err != nil {
		t.Fatal(err)
	}
	c := make(chan struct{}, 1)
	overrun := &Watch{f: os.NewFile(uintptr(dup), "overrun")}
	overrun.sub = &Subscription{C: c, w: overrun, tick: c, done: make(chan struct{})}
	go overrun.sub.receive()
	tick(t, overrun.sub)
	reset(t, ln, "tcp4")
	tick(t, overrun.sub)
	if err := overrun.Close(); err != nil {
		t.Error(err)
	}
	if err := subscribe(fd, []uint16{port(ln)}); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		reset(t, ln, "tcp4")
	}
	w, err := NewWatch(fd)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := receive(fd, make([]byte, 1)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("after NewWatch: got %v, want an empty queue", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestWatchCloseEndsSubscription(t *testing.T) {
	fd, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWatch(fd)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := w.Subscribe([]uint16{1})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	for range sub.C {
	}
	if _, err := w.Subscribe([]uint16{1}); err == nil {
		t.Error("after Close: no error")
	}
}
