package activation

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func childServe() int {
	ctx, stop := StopSignal(context.Background())
	defer stop()
	fail := func(err error) int {
		fmt.Fprintf(os.Stderr, "child %d: %v\n", os.Getpid(), err)
		return 1
	}
	passed, err := Inherit()
	if err != nil {
		return fail(err)
	}
	listeners, err := passed.AllListeners()
	if err != nil {
		return fail(err)
	}
	notifier, err := NewNotifier()
	if err != nil {
		return fail(err)
	}
	defer notifier.Close()
	pid := fmt.Sprint(os.Getpid())
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(20 * time.Millisecond)
		}
		io.WriteString(w, pid)
	})}
	// On a busy machine these clients, or this process, pause for more than the usual second.
	options := ServeOptions{Notifier: notifier, Grace: 4 * time.Second}
	if err := Serve(ctx, server, listeners, options); err != nil {
		return fail(err)
	}
	return 0
}

// load is a number of clients that send requests without pause until stopped, and count what was
// answered and what was lost.
type load struct {
	address net.Addr
	stop    atomic.Bool
	clients sync.WaitGroup
	closes  atomic.Int64 // responses with Connection: close

	mu       sync.Mutex
	counted  *sync.Cond     // of mu: the next two have changed
	answered map[string]int // by body
	lost     []error
}

// run is one client. Clients with keep reuse their connection for as long as the server lets them.
func (l *load) run(path string, keep int) {
	defer l.clients.Done()
	var c *client
	var sent int
	for !l.stop.Load() {
		if c == nil {
			conn, err := net.Dial(l.address.Network(), l.address.String())
			if err != nil {
				l.count("", err)
				return
			}
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			c, sent = &client{conn, bufio.NewReader(conn)}, 0
		}
		err := c.send(path)
		var body string
		var last bool
		if err == nil {
			body, last, err = c.receive()
		}
		l.count(body, err)
		if last {
			l.closes.Add(1)
		}
		if sent++; last || err != nil || sent == keep {
			c.Close()
			c = nil
		}
	}
	if c != nil {
		c.Close()
	}
}

func (l *load) count(body string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.counted.Broadcast()
	if err != nil {
		l.lost = append(l.lost, err)
		return
	}
	l.answered[body]++
}

func (l *load) await(t *testing.T, body string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.counted.Broadcast()
	})()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.answered[body] < n && len(l.lost) == 0 {
		if ctx.Err() != nil {
			t.Errorf("process %s did not answer %d requests", body, n)
			return
		}
		l.counted.Wait()
	}
}

// The proof of the package: services are restarted one after another under load on a socket that
// this test, as PID 1 does, holds open, and every single request is answered.
func TestRestartUnderLoadLosesNothing(t *testing.T) {
	noLeaks(t)
	l, file := listenTCP(t)
	m := newManager(t, abstract(t))
	start := func() *child {
		c := startChild(t, "serve", []*os.File{file}, "NOTIFY_SOCKET="+m.address, "LISTEN_FDNAMES=app.socket")
		m.SetReadDeadline(time.Now().Add(10 * time.Second))
		m.expect(t, "READY=1")
		return c
	}
	c := start()
	traffic := &load{address: l.Addr(), answered: map[string]int{}}
	traffic.counted = sync.NewCond(&traffic.mu)
	for _, kind := range []struct {
		path string
		keep int
	}{{"/", 1}, {"/", 1}, {"/", 3}, {"/", 0}, {"/", 0}, {"/slow", 1}, {"/slow", 0}, {"/slow", 0}} {
		traffic.clients.Add(1)
		go traffic.run(kind.path, kind.keep)
	}
	for range 2 {
		traffic.await(t, fmt.Sprint(c.Process.Pid), 300)
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		m.expect(t, "STOPPING=1")
		if err := c.Wait(); err != nil {
			t.Errorf("child: %v", err)
		}
		c = start()
	}
	traffic.await(t, fmt.Sprint(c.Process.Pid), 300)
	traffic.stop.Store(true)
	traffic.clients.Wait()

	total := 0
	for _, n := range traffic.answered {
		total += n
	}
	t.Logf("%d requests answered by %d processes, %d with Connection: close", total, len(traffic.answered), traffic.closes.Load())
	for _, err := range traffic.lost {
		t.Errorf("lost: %v", err)
	}
	if len(traffic.answered) != 3 || traffic.closes.Load() == 0 {
		t.Errorf("answered by processes %v", traffic.answered)
	}
	c.Process.Signal(syscall.SIGTERM)
	m.expect(t, "STOPPING=1")
	if err := c.Wait(); err != nil {
		t.Errorf("child: %v", err)
	}
}
