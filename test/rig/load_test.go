package rig

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestLoadCounts(t *testing.T) {
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch i := n.Add(1); {
		case r.URL.Path != "/x":
			w.WriteHeader(404)
		case i == 10:
			w.WriteHeader(503)
		case i == 11:
			panic(http.ErrAbortHandler)
		case i == 12:
			fmt.Fprint(w, "nonsense")
		default:
			fmt.Fprintf(w, "hello instance=%d pid=%d\n", i%2, 100+i%2)
		}
	}))
	defer srv.Close()
	for _, keepAlive := range []bool{false, true} {
		n.Store(0)
		r := StartLoad(LoadOptions{Addr: srv.Listener.Addr().String(), Path: "/x", Want: "hello", Clients: 4, KeepAlive: keepAlive, Requests: 103}).Wait()
		ended := r.Failures[EOF].Count + r.Stale // on a kept connection the abort is a stale one, and sent again
		if r.OK+r.Failed() != 103 || r.Failures[BadStatus].Count != 1 || r.Failures[BadBody].Count != 1 || ended != 1 {
			t.Errorf("keep-alive %v: %s", keepAlive, r)
		}
		if len(r.Instances) != 2 || r.Instances["0"] != r.PIDs[100] || r.Instances["0"]+r.Instances["1"] != r.OK {
			t.Errorf("keep-alive %v: instances %v, PIDs %v, want two of each and %d in all", keepAlive, r.Instances, r.PIDs, r.OK)
		}
		if want := 103; !keepAlive && r.Connections != want {
			t.Errorf("%d connections, want %d", r.Connections, want)
		}
		if keepAlive && r.Connections > 10 {
			t.Errorf("%d connections of 4 clients with keep-alive", r.Connections)
		}
		if text := r.Failures[BadBody].First; !strings.Contains(text, "nonsense") || r.Failures[BadBody].At.IsZero() {
			t.Errorf("first failure %q lacks the body or its time", text)
		}
	}
}

// misbehave serves connections with f and returns the address.
func misbehave(t *testing.T, f func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f(c.(*net.TCPConn))
		}
	}()
	return l.Addr().String()
}

func readRequest(c net.Conn) { c.Read(make([]byte, 4096)) }

func TestLoadFailureKinds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	for kind, addr := range map[FailureKind]string{
		Refused: closed,
		Reset:   misbehave(t, func(c *net.TCPConn) { readRequest(c); c.SetLinger(0); c.Close() }),
		EOF: misbehave(t, func(c *net.TCPConn) {
			readRequest(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort")
			c.Close()
		}),
		Timeout: misbehave(t, func(c *net.TCPConn) { io.Copy(io.Discard, c); c.Close() }),
		Other:   misbehave(t, func(c *net.TCPConn) { readRequest(c); io.WriteString(c, "SMTP?\r\n\r\n"); c.Close() }),
	} {
		opts := LoadOptions{Addr: addr, Requests: 3}
		if kind == Timeout {
			opts.Timeout = 200 * time.Millisecond
		}
		r := StartLoad(opts).Wait()
		if r.OK != 0 || r.Failures[kind].Count != 3 || r.Failed() != 3 {
			t.Errorf("%s: %s", kind, r)
		}
	}
}

func TestLoadRateAndStop(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") }))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	if r := StartLoad(LoadOptions{Addr: addr, Rate: 200, Requests: 60}).Wait(); r.OK != 60 || r.Elapsed < 290*time.Millisecond {
		t.Errorf("60 requests, 200 a second: %s", r)
	}
	if r := StartLoad(LoadOptions{Addr: addr, Duration: 200 * time.Millisecond}).Wait(); r.OK == 0 || r.Elapsed < 200*time.Millisecond {
		t.Errorf("load for 0.2 s: %s", r)
	}
	l := StartLoad(LoadOptions{Addr: addr, KeepAlive: true})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := l.WaitOK(ctx, 100); err != nil {
		t.Fatal(err)
	}
	if r := l.Stop(); r.OK < 100 || r.Failed() > 0 || l.Stop().OK != r.OK {
		t.Errorf("stopped load: %s", r)
	}
	if err := l.WaitOK(ctx, 1); err == nil {
		t.Error("WaitOK on a load that has ended = nil")
	}
}

// TestClosedByPeer checks what a client looks at before it sends on a kept connection.
func TestClosedByPeer(t *testing.T) {
	hangUp := make(chan struct{})
	addr := misbehave(t, func(c *net.TCPConn) { <-hangUp; c.Close() })
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn := &loadConn{Conn: c}
	defer conn.close()
	if conn.closedByPeer() {
		t.Error("an open connection is taken for a closed one")
	}
	close(hangUp)
	for deadline := time.Now().Add(10 * time.Second); !conn.closedByPeer(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a closed connection is taken for an open one")
		}
	}
}

// TestLoadKeptConnection ends a kept connection when its second request has come: closed, the
// request is sent again and stale; silent, it fails.
func TestLoadKeptConnection(t *testing.T) {
	for _, test := range []struct {
		name              string
		second            func(*net.TCPConn)
		ok, stale, failed int
	}{
		{"close", func(c *net.TCPConn) {}, 2, 1, 0},
		{"reset", func(c *net.TCPConn) { c.SetLinger(0) }, 2, 1, 0},
		{"silence", func(c *net.TCPConn) { io.Copy(io.Discard, c) }, 1, 0, 1},
	} {
		addr := misbehave(t, func(c *net.TCPConn) {
			defer c.Close()
			readRequest(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			readRequest(c)
			test.second(c)
		})
		r := StartLoad(LoadOptions{Addr: addr, KeepAlive: true, Clients: 1, Requests: 2, Timeout: time.Second}).Wait()
		if r.OK != test.ok || r.Stale != test.stale || r.Failed() != test.failed {
			t.Errorf("%s: %s", test.name, r)
		}
	}
}
