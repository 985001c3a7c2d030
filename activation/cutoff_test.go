package activation

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are in memory, where time is the test's own.
type pipes struct {
	conns  chan net.Conn
	closed context.Context
	close  context.CancelFunc
}

func newPipes() *pipes {
	closed, close := context.WithCancel(context.Background())
	return &pipes{make(chan net.Conn), closed, close}
}

// dial connects a client without a socket.
func (p *pipes) dial(t *testing.T) *client {
	conn, server := net.Pipe()
	t.Cleanup(func() { conn.Close() })
	p.conns <- server
	return &client{conn, bufio.NewReader(conn)}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed.Done():
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.close(); return nil }

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// endless answers nothing, and reports the end of each request.
type endless struct {
	entered chan struct{}
	ended   chan time.Time
}

func (e endless) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	e.entered <- struct{}{}
	<-r.Context().Done()
	e.ended <- time.Now()
}

// Requests that have no end are cut off one after another.
func TestServeSpreadsCutOffs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests, timeout, spread = 50, 30 * time.Second, 5 * time.Second
		l := newPipes()
		e := endless{make(chan struct{}), make(chan time.Time, requests)}
		r := serve(t, &http.Server{Handler: e}, ServeOptions{DrainTimeout: timeout}, l)
		for range requests {
			client, server := net.Pipe()
			defer client.Close()
			l.conns <- server
			if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			<-e.entered
		}
		stopped := time.Now()
		r.stop()
		for i := range requests {
			want := timeout - spread + time.Duration(i+1)*spread/requests
			if got := (<-e.ended).Sub(stopped); got < want-spread/spreadSteps || got > want+spread/spreadSteps {
				t.Errorf("request %d was cut off after %s, want %s", i+1, got, want)
			}
		}
		if err := <-r.done; err == nil || !strings.Contains(err.Error(), "50 connections still busy") {
			t.Errorf("got error %v", err)
		}
		if took := time.Since(stopped); took != timeout {
			t.Errorf("Serve returned after %s, want %s", took, timeout)
		}
	})
}

// takeOver is a handler that takes its connection over and sends back what comes, to the end.
func takeOver(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			io.Copy(conn, buffered)
		}()
	}
}

// upgrade has the connection taken over, over TLS or not.
func (c *client) upgrade(t *testing.T, secure bool) {
	t.Helper()
	if secure {
		c.Conn = tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true})
		c.r.Reset(c.Conn)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
}

// Connections that handlers have taken over, and leave open, are closed one after another; those
// that they close are not waited for.
func TestServeSpreadsHijacked(t *testing.T) {
	template := httptest.NewTLSServer(nil)
	template.Close()
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": template.TLS} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			tcp, _ := listenTCP(t)
			local, err := net.Listen("unix", filepath.Join(t.TempDir(), "app.sock"))
			if err != nil {
				t.Fatal(err)
			}
			// All would be closed within 5 s: the first after half a second, the last four and a
			// half later.
			r := serve(t, &http.Server{Handler: takeOver(t), TLSConfig: config}, ServeOptions{Grace: -1}, tcp, local)
			const clients = 10
			var conns []*client
			echo, end := make(chan error, clients), make(chan error, clients)
			for i := range clients {
				c := dial(t, []net.Listener{tcp, local}[i%2].Addr())
				c.upgrade(t, config != nil)
				conns = append(conns, c)
				go func() { // ends with the connection
					for {
						if _, err := c.r.ReadByte(); err != nil {
							end <- err
							return
						}
						echo <- nil
					}
				}()
			}
			r.stop()
			if err := <-end; errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			for _, c := range conns {
				io.WriteString(c, "x") // fails where it is closed
			}
			select {
			case <-echo:
			case <-r.done:
				t.Fatal("all were closed at once")
			}
			for _, c := range conns {
				c.Close()
			}
			r.wait(t)
		})
	}
}

func TestHijackedAreForgotten(t *testing.T) {
	c := watchConnections(&http.Server{})
	server := httptest.NewServer(nil)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.note(conn, http.StateNew)
	c.note(conn, http.StateHijacked)
	if cut, left := c.closeDownTo(1); cut != 0 || left != 1 {
		t.Errorf("a hijacked connection: %d cut, %d left", cut, left)
	}
	conn.Close()
	if cut, left := c.closeDownTo(1); cut != 0 || left != 0 {
		t.Errorf("a hijacked connection that was closed: %d cut, %d left", cut, left)
	}
	conn = nil
	deadline := time.Now().Add(10 * time.Second)
	for n := 1; n > 0; {
		runtime.GC()
		c.mu.Lock()
		n = len(c.hijacked)
		c.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are remembered that nobody has", n)
		}
		runtime.Gosched()
	}
}

// A request of which only a part has come when the drain has let all idle clients go is answered
// all the same.
func TestServeAnswersHalfSentRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		r := serve(t, newTestServer().Server, ServeOptions{}, l)
		client, server := net.Pipe()
		defer client.Close()
		l.conns <- server
		const request = "GET / HTTP/1.1\r\nHost: test\r\n\r\n"
		if _, err := io.WriteString(client, request[:20]); err != nil {
			t.Fatal(err)
		}
		r.stop()
		time.Sleep(2 * defaultGrace)
		if _, err := io.WriteString(client, request[20:]); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !resp.Close {
			t.Errorf("got %s, Connection: close: %t", resp.Status, resp.Close)
		}
		r.wait(t)
	})
}

// A connection on which no request has come after 5 s holds nothing up.
func TestServeClosesSilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		r := serve(t, newTestServer().Server, ServeOptions{}, l)
		client, server := net.Pipe()
		defer client.Close()
		l.conns <- server
		synctest.Wait()
		began := time.Now()
		r.stop()
		r.wait(t)
		// http.Server.Shutdown counts whole seconds, and looks every half.
		if took := time.Since(began); took < unaskedFor || took > unaskedFor+2*time.Second {
			t.Errorf("Serve returned %s after the stop, want some %s", took, unaskedFor)
		}
	})
}
