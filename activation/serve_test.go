package activation

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// client is an HTTP/1.1 client on one connection that forgives nothing: net/http's would repeat
// requests that were lost.
type client struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, address net.Addr) *client {
	t.Helper()
	conn, err := net.Dial(address.Network(), address.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return &client{conn, bufio.NewReader(conn)}
}

func (c *client) send(path string) error {
	_, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nping", path)
	return err
}

// awaitArrived waits until the server's kernel has what was sent.
func (c *client) awaitArrived(t *testing.T) {
	t.Helper()
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for left := 1; left > 0; {
		err := raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
		if err != nil {
			t.Fatal(err)
		}
	}
}

// receive returns the body, and whether the server said "Connection: close".
func (c *client) receive() (body string, last bool, err error) {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return "", false, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(text), resp.Close, err
}

func (c *client) request(t *testing.T, path string) (last bool) {
	t.Helper()
	if err := c.send(path); err != nil {
		t.Fatal(err)
	}
	_, last, err := c.receive()
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// testServer answers at once, and under /wait when it is told to.
type testServer struct {
	*http.Server
	entered chan struct{} // receives one value for each request under /wait
	proceed chan struct{} // closed to let them go
}

func newTestServer() *testServer {
	s := &testServer{entered: make(chan struct{}, 100), proceed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		s.entered <- struct{}{}
		<-s.proceed
		io.WriteString(w, "waited")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "pong") })
	s.Server = &http.Server{Handler: mux}
	return s
}

// running is a Serve under way.
type running struct {
	stop context.CancelFunc
	done chan error
}

func serve(t *testing.T, server *http.Server, options ServeOptions, listeners ...net.Listener) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r := &running{stop, make(chan error, 1)}
	go func() { r.done <- Serve(ctx, server, listeners, options) }()
	t.Cleanup(stop)
	return r
}

func (r *running) wait(t *testing.T) {
	t.Helper()
	select {
	case err := <-r.done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Serve does not return")
	}
}

func (m *manager) expect(t *testing.T, want string) {
	t.Helper()
	if got, _ := m.receive(t); got != want {
		t.Errorf("manager got %q, want %q", got, want)
	}
}

func TestServeFinishesRequestsInFlight(t *testing.T) {
	noLeaks(t)
	l, _ := listenTCP(t)
	m := newManager(t, abstract(t))
	server := newTestServer()
	last := make(chan struct{}) // closed when keep-alives have ended
	server.RegisterOnShutdown(func() { close(last) })
	r := serve(t, server.Server, ServeOptions{Notifier: m.notifier(t, ""), Grace: 10 * time.Millisecond}, l)
	m.expect(t, "READY=1")

	c := dial(t, l.Addr())
	if err := c.send("/wait"); err != nil {
		t.Fatal(err)
	}
	<-server.entered
	r.stop()
	m.expect(t, "STOPPING=1")
	<-last
	select {
	case err := <-r.done:
		t.Fatalf("Serve returned with a request in flight: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(server.proceed)
	body, closes, err := c.receive()
	if err != nil || body != "waited" || !closes {
		t.Errorf("got %q, %v, Connection: close: %t", body, err, closes)
	}
	r.wait(t)
}

func TestServeLetsBusyClientsLeave(t *testing.T) {
	noLeaks(t)
	l, _ := listenTCP(t)
	m := newManager(t, abstract(t))
	server := newTestServer()
	const grace = 300 * time.Millisecond
	r := serve(t, server.Server, ServeOptions{Notifier: m.notifier(t, ""), Grace: grace}, l)
	m.expect(t, "READY=1")

	busy, inFlight, idle := dial(t, l.Addr()), dial(t, l.Addr()), dial(t, l.Addr())
	if busy.request(t, "/") || idle.request(t, "/") {
		t.Fatal("Connection: close before the drain")
	}
	if err := inFlight.send("/wait"); err != nil {
		t.Fatal(err)
	}
	<-server.entered
	begin := time.Now()
	r.stop()
	m.expect(t, "STOPPING=1")

	if !busy.request(t, "/") {
		t.Error("a request during the drain was not answered with Connection: close")
	}
	late := dial(t, l.Addr())
	if !late.request(t, "/") {
		t.Error("a new connection during the drain was not answered with Connection: close")
	}
	// Answered before the drain ends but begun before it: the connection stays, for one request
	// more.
	close(server.proceed)
	if _, last, err := inFlight.receive(); last || err != nil {
		t.Errorf("response under way: %v, Connection: close: %t", err, last)
	}
	if !inFlight.request(t, "/") {
		t.Error("the next request was not answered with Connection: close")
	}
	if _, err := idle.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("idle connection: got %v, want EOF", err)
	}
	if open := time.Since(begin); open < grace {
		t.Errorf("idle connection was closed after %s, before the grace of %s", open, grace)
	}
	r.wait(t)
}

// A connection that becomes idle late in the drain has its whole grace too.
func TestServeGraceBeginsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		server := newTestServer()
		const grace = 300 * time.Millisecond
		r := serve(t, server.Server, ServeOptions{Grace: grace}, l)
		idle, inFlight := l.dial(t), l.dial(t)
		idle.request(t, "/")
		if err := inFlight.send("/wait"); err != nil {
			t.Fatal(err)
		}
		<-server.entered
		r.stop()
		time.Sleep(grace * 2 / 3)
		close(server.proceed)
		if _, last, err := inFlight.receive(); last || err != nil {
			t.Fatalf("response under way: %v, Connection: close: %t", err, last)
		}
		time.Sleep(grace * 2 / 3) // after the grace of the other, within its own
		if !inFlight.request(t, "/") {
			t.Error("not answered with Connection: close")
		}
		r.wait(t)
	})
}

// heldConn is a connection whose second request is not read before somebody has looked how much
// there is to read: as in a process that is held up.
type heldConn struct {
	*net.TCPConn
	hold   *atomic.Bool
	looked chan struct{}
	look   *sync.Once
}

func (c heldConn) Read(b []byte) (int, error) {
	if c.hold.Load() {
		<-c.looked
	}
	return c.TCPConn.Read(b)
}

func (c heldConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	return heldRaw{raw, c}, err
}

// heldRaw lets the connection read after the look, not during it.
type heldRaw struct {
	syscall.RawConn
	conn heldConn
}

func (r heldRaw) Control(f func(fd uintptr)) error {
	defer r.conn.look.Do(func() { close(r.conn.looked) })
	return r.RawConn.Control(f)
}

func (c heldConn) Close() error {
	c.look.Do(func() { close(c.looked) })
	return c.TCPConn.Close()
}

// heldListener makes one heldConn.
type heldListener struct {
	net.Listener
	hold *atomic.Bool
}

func (l heldListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return heldConn{conn.(*net.TCPConn), l.hold, make(chan struct{}), new(sync.Once)}, nil
}

// A request that has come is answered, though the process has not read it when the drain closes
// idle connections.
func TestServeReadsBeforeItCloses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := newTestServer()
	idle := make(chan struct{}, 2)
	hold := new(atomic.Bool)
	server.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateIdle {
			hold.Store(true)
			idle <- struct{}{}
		}
	}
	r := serve(t, server.Server, ServeOptions{Grace: -1}, heldListener{l, hold})
	c := dial(t, l.Addr())
	c.request(t, "/")
	<-idle
	if err := c.send("/"); err != nil {
		t.Fatal(err)
	}
	c.awaitArrived(t)
	r.stop()
	if body, _, err := c.receive(); err != nil || body != "pong" {
		t.Errorf("request was answered with %q, %v", body, err)
	}
	r.wait(t)
}

func TestServeEndsAtOnceWithoutConnections(t *testing.T) {
	noLeaks(t)
	l, _ := listenTCP(t)
	server := newTestServer()
	r := serve(t, server.Server, ServeOptions{Grace: time.Hour}, l)
	c := dial(t, l.Addr())
	c.request(t, "/")
	r.stop()
	c.Close() // the last connection; nobody else can come back
	r.wait(t)
}

func TestServeCutsOffAfterDrainTimeout(t *testing.T) {
	noLeaks(t)
	l, _ := listenTCP(t)
	server := newTestServer()
	r := serve(t, server.Server, ServeOptions{DrainTimeout: 50 * time.Millisecond}, l)
	c := dial(t, l.Addr())
	if err := c.send("/wait"); err != nil {
		t.Fatal(err)
	}
	<-server.entered
	r.stop()
	err := <-r.done
	if err == nil || !strings.Contains(err.Error(), "1 connections still busy after 50ms") {
		t.Errorf("got error %v", err)
	}
	if _, _, err := c.receive(); err == nil {
		t.Error("the request was answered")
	}
	close(server.proceed)
}

func TestServeFeedsWatchdog(t *testing.T) {
	noLeaks(t)
	l, _ := listenTCP(t)
	m := newManager(t, abstract(t))
	server := newTestServer()
	n := m.notifier(t, "WATCHDOG_USEC=20000")
	r := serve(t, server.Server, ServeOptions{Notifier: n, Grace: time.Millisecond}, l)
	m.expect(t, "READY=1")
	m.expect(t, "WATCHDOG=1")
	m.expect(t, "WATCHDOG=1")
	c := dial(t, l.Addr())
	if err := c.send("/wait"); err != nil {
		t.Fatal(err)
	}
	<-server.entered
	r.stop()
	for message := ""; message != "STOPPING=1"; message, _ = m.receive(t) {
		if t.Failed() {
			t.FailNow()
		}
	}
	m.expect(t, "WATCHDOG=1") // a drain is no reason to be killed
	m.expect(t, "WATCHDOG=1")
	close(server.proceed)
	if _, _, err := c.receive(); err != nil {
		t.Error(err)
	}
	r.wait(t)
}

func TestServeFailures(t *testing.T) {
	noLeaks(t)
	if err := Serve(t.Context(), &http.Server{}, nil, ServeOptions{}); err == nil {
		t.Error("served on no listeners")
	}

	good, _ := listenTCP(t)
	bad, _ := listenTCP(t)
	r := serve(t, newTestServer().Server, ServeOptions{}, good, bad)
	dial(t, good.Addr()).Close()
	bad.Close()
	if err := <-r.done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("listener failed: got error %v", err)
	}
	if _, err := good.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the other listener was left open: %v", err)
	}

	l, _ := listenTCP(t)
	m := newManager(t, abstract(t))
	n := m.notifier(t, "")
	m.Close()
	server := newTestServer()
	server.ErrorLog = log.New(io.Discard, "", 0) // STOPPING=1 does not get through either
	if err := <-serve(t, server.Server, ServeOptions{Notifier: n}, l).done; !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("READY=1 not sent: got error %v", err)
	}
}

func TestServeHTTP2(t *testing.T) {
	noLeaks(t)
	template := httptest.NewUnstartedServer(nil) // for its certificate and a client that trusts it
	template.EnableHTTP2 = true
	template.StartTLS()
	defer template.Close()
	transport := template.Client().Transport.(*http.Transport)
	defer transport.CloseIdleConnections()

	l, _ := listenTCP(t)
	server := newTestServer()
	server.TLSConfig = template.TLS
	other, _ := listenTCP(t)
	r := serve(t, server.Server, ServeOptions{Grace: 50 * time.Millisecond}, l, other)
	type answer struct {
		proto string
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		resp, err := template.Client().Post("https://"+l.Addr().String()+"/wait", "text/plain", strings.NewReader("ping"))
		if err != nil {
			answers <- answer{err: err}
			return
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		answers <- answer{resp.Proto, err}
	}()
	<-server.entered
	r.stop()
	time.AfterFunc(100*time.Millisecond, func() { close(server.proceed) })
	if a := <-answers; a.proto != "HTTP/2.0" || a.err != nil {
		t.Errorf("got %q, %v", a.proto, a.err)
	}
	r.wait(t)
}

// hidden is a wrapper as programs put around listeners: nothing but net.Listener is seen of the
// socket.
type hidden struct{ net.Listener }

func TestServeWrappedListener(t *testing.T) {
	noLeaks(t)
	l, _ := listenTCP(t)
	r := serve(t, newTestServer().Server, ServeOptions{Grace: 10 * time.Millisecond}, hidden{l})
	dial(t, l.Addr()).request(t, "/")
	r.stop()
	r.wait(t)
}
