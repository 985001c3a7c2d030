package apps

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// Load puts load on the app; opts.Addr may be empty.
func (a *App) Load(opts rig.LoadOptions) *rig.Load {
	if opts.Addr == "" {
		opts.Addr = a.Addr()
	}
	if opts.Timeout == 0 {
		opts.Timeout = Limit
	}
	return a.StartLoad(opts)
}

// AwaitOK waits for n more answers.
func (a *App) AwaitOK(l *rig.Load, n int) {
	a.T.Helper()
	ctx, cancel := context.WithTimeout(a.T.Context(), Limit)
	defer cancel()
	if err := l.WaitOK(ctx, n); err != nil {
		a.T.Fatal(err)
	}
}

// Lossless fails the test unless every request was answered.
func (a *App) Lossless(r rig.Result) {
	a.T.Helper()
	if r.Failed() > 0 || r.OK == 0 {
		a.T.Errorf("load: %s", r)
	}
}

// LostAtMost fails the test if more connections broke than most, those on which something was going
// on when it was killed; or if anything else happened to a request.
func (a *App) LostAtMost(r rig.Result, most int) {
	a.T.Helper()
	if !r.LostAtMost(most) {
		a.T.Errorf("load: %s; want at most %d failures, of connections that what was killed was at work on", r, most)
	}
}

// Evenly makes connections one after the other and checks that each process had its exact share of
// them: as many processes as there are instances, and where the answers tell the instance, each of
// these too.
func (a *App) Evenly() {
	a.T.Helper()
	const each = 40
	r := a.Load(rig.LoadOptions{Requests: each * a.N, Clients: 1}).Wait()
	a.Lossless(r)
	if len(r.PIDs) != a.N {
		a.T.Errorf("connections by process = %v, want %d processes", r.PIDs, a.N)
	}
	for pid, n := range r.PIDs {
		if n != each {
			a.T.Errorf("process %d had %d connections, want %d: %v", pid, n, each, r.PIDs)
		}
	}
	if _, silent := r.Instances["?"]; silent {
		return
	}
	for i := 1; i <= a.N; i++ {
		if n := r.Instances[fmt.Sprint(i)]; n != each {
			a.T.Errorf("instance %d had %d connections, want %d: %v", i, n, each, r.Instances)
		}
	}
}

// Serves checks that every instance answers with want.
func (a *App) Serves(want string) {
	a.T.Helper()
	a.Lossless(a.Load(rig.LoadOptions{Requests: 4 * a.N, Want: want}).Wait())
}

// Held is an open connection.
type Held struct {
	net.Conn
	r        *bufio.Reader
	Instance string // that has answered; empty if none has
}

// Open makes n connections, one after the other.
func (a *App) Open(n int) []*Held {
	a.T.Helper()
	var conns []*Held
	for range n {
		conn, err := a.DialContext(a.T.Context(), "tcp", a.Addr())
		if err != nil {
			a.T.Fatal(err)
		}
		a.T.Cleanup(func() { conn.Close() })
		conns = append(conns, &Held{Conn: conn, r: bufio.NewReader(conn)})
	}
	return conns
}

// Hold is Open with one request answered on each.
func (a *App) Hold(n int) []*Held {
	a.T.Helper()
	conns := a.Open(n)
	for _, h := range conns {
		var err error
		if h.Instance, err = h.Get("/"); err != nil {
			a.T.Fatal(err)
		}
	}
	return conns
}

// Get sends one request and returns the instance that answered.
func (h *Held) Get(path string) (instance string, err error) {
	if err := h.Send(path); err != nil {
		return "", err
	}
	return h.Receive()
}

// Send returns when the request is with the server's kernel.
func (h *Held) Send(path string) error {
	if err := h.SetDeadline(time.Now().Add(Limit)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(h, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path)
	return err
}

// Response returns the answer to the oldest request. The caller closes its body.
func (h *Held) Response() (*http.Response, error) {
	if err := h.SetDeadline(time.Now().Add(Limit)); err != nil {
		return nil, err
	}
	return http.ReadResponse(h.r, nil)
}

// Receive returns the instance that has answered the oldest request.
func (h *Held) Receive() (instance string, err error) {
	resp, err := h.Response()
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	_, rest, _ := strings.Cut(string(body), "instance=")
	instance, _, _ = strings.Cut(rest, " ")
	return instance, nil
}
