package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// kind is what a client does again and again.
type kind struct {
	name    string
	clients int
	pause   time.Duration // between two requests, on average
	kept    bool          // on one connection, as long as the server keeps it
	slow    int           // milliseconds that a request takes at most, and a third of that at least; zero: no time
	halved  bool          // sends the first half of a request, and the second a while later
}

// kinds are the load of one app: some 25 requests a second.
var kinds = []kind{
	{name: "new", clients: 2, pause: 250 * time.Millisecond},
	{name: "kept", clients: 4, pause: 500 * time.Millisecond, kept: true},
	{name: "kept slow", clients: 2, pause: 500 * time.Millisecond, kept: true, slow: 1200},
	{name: "slow", clients: 2, pause: 300 * time.Millisecond, slow: 2500},
	{name: "half-sent", clients: 2, pause: 300 * time.Millisecond, halved: true},
}

// requestLimit ends a request that nobody answers. Restarts, drains and frozen programs are
// shorter.
const requestLimit = 45 * time.Second

// rarely is the pause of clients on kept connections of programs that say to none of them that it
// is the last answer.
const rarely = 6 * time.Second

// racing is how long after it was sent a quick request on a kept connection may still meet the
// server's closing of it. A request that is cut off later was being worked on.
const racing = time.Second

// client is one of them. Only its own goroutine uses it.
type client struct {
	w    *world
	app  *app
	kind kind
	rand *rand.Rand
	conn *clientConn // nil, or the one that is kept
}

// clientConn is one connection, and the latest instance that answered on it.
type clientConn struct {
	net.Conn
	r        *bufio.Reader
	port     int
	instance int
}

// startLoad starts the clients of all apps. They end with ctx, and done is called by each as it
// ends.
func (w *world) startLoad(ctx context.Context, clients *sync.WaitGroup) {
	for i, name := range w.names {
		a := w.apps[name]
		if a.http2 {
			for n := range 2 {
				clients.Go(func() { w.runHTTP2(ctx, a, rand.New(rand.NewPCG(uint64(i), uint64(n)))) })
			}
			continue
		}
		for k, kind := range kinds {
			for n := range kind.clients {
				if kind.kept && a.rare {
					kind.pause = rarely
				}
				c := &client{w: w, app: a, kind: kind, rand: rand.New(rand.NewPCG(uint64(i), uint64(k*10+n)))}
				clients.Go(func() { c.run(ctx) })
			}
		}
	}
}

// run sends requests until ctx ends; the last one is finished.
func (c *client) run(ctx context.Context) {
	defer c.drop()
	for pause(ctx, jitter(c.rand, c.kind.pause)) {
		c.request()
	}
}

func jitter(r *rand.Rand, d time.Duration) time.Duration {
	return d/2 + time.Duration(r.Int64N(int64(d)))
}

func (c *client) drop() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// tries bounds how often one request is sent again.
const tries = 5

// request sends one request until it is answered or has failed, and counts it.
func (c *client) request() {
	began := time.Now()
	for try := 1; ; try++ {
		sent, port := time.Now(), 0
		reused, answered, err := c.exchange(sent)
		if c.conn != nil {
			port = c.conn.port
		}
		if err == nil {
			c.w.ledger.count(c.app.name, func(n *counts) { n.ok++; n.slowest = max(n.slowest, time.Since(began)) })
			if !c.kind.kept {
				c.drop()
			}
			return
		}
		at := 0
		if c.conn != nil {
			at = c.conn.instance
		}
		c.drop()
		last := try == tries
		switch {
		case reused && !answered && closedByServer(err) && time.Since(sent) < racing && !last:
			c.w.ledger.count(c.app.name, func(n *counts) { n.again++ })
		case errors.Is(err, syscall.ECONNREFUSED) && c.w.ledger.mayRefuse(c.app.name, sent):
			c.w.ledger.count(c.app.name, func(n *counts) { n.refused++ })
			return
		case errors.Is(err, syscall.ECONNRESET) && c.w.ledger.mayCut(c.app.name, sent):
			c.w.ledger.count(c.app.name, func(n *counts) { n.refused++ })
			return
		case c.app.hostile && (at == hostileInstance || at == 0 && !last):
			c.w.ledger.count(c.app.name, func(n *counts) { n.own++ })
		default:
			c.w.ledger.fail(failure{app: c.app.name, kind: c.kind.name, port: port, began: sent, ended: time.Now(), err: err})
			return
		}
	}
}

// closedByServer says whether err is what a client sees of a connection that the server has closed.
func closedByServer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// exchange sends one request on c.conn, or on a new connection, and reads the answer. answered says
// that a byte of it came.
func (c *client) exchange(sent time.Time) (reused, answered bool, err error) {
	ctx, cancel := context.WithDeadline(context.Background(), sent.Add(requestLimit))
	defer cancel()
	if reused = c.conn != nil; !reused {
		conn, err := c.w.c.DialContext(ctx, "tcp", c.app.addr())
		if err != nil {
			return false, false, err
		}
		c.conn = &clientConn{Conn: conn, r: bufio.NewReader(conn), port: conn.LocalAddr().(*net.TCPAddr).Port}
	}
	if err := c.conn.SetDeadline(sent.Add(requestLimit)); err != nil {
		return reused, false, err
	}
	if err := c.send(); err != nil {
		return reused, false, err
	}
	if _, err := c.conn.r.Peek(1); err != nil {
		return reused, false, err
	}
	resp, err := http.ReadResponse(c.conn.r, nil)
	if err != nil {
		return reused, true, err
	}
	defer resp.Body.Close()
	c.conn.instance, err = readAnswer(resp)
	if err == nil && resp.Close {
		c.drop()
	}
	return reused, true, err
}

// send writes the request; one that is to be halved in two pieces, cut anywhere.
func (c *client) send() error {
	path := "/"
	if c.kind.slow > 0 {
		path = "/slow?ms=" + strconv.Itoa(c.kind.slow/3+c.rand.IntN(c.kind.slow*2/3))
	}
	text := "GET " + path + " HTTP/1.1\r\nHost: chaos\r\n\r\n"
	if c.kind.halved {
		cut := 1 + c.rand.IntN(len(text)-1)
		if _, err := io.WriteString(c.conn, text[:cut]); err != nil {
			return err
		}
		text = text[cut:]
		time.Sleep(jitter(c.rand, 800*time.Millisecond))
	}
	_, err := io.WriteString(c.conn, text)
	return err
}

// readAnswer returns the instance that has answered, also beside an error if the answer says it.
func readAnswer(resp *http.Response) (instance int, err error) {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	instance, _, err = parseAnswer(string(body))
	if resp.StatusCode != http.StatusOK || err != nil {
		return instance, fmt.Errorf("status %d, body %q", resp.StatusCode, body)
	}
	return instance, nil
}

// parseAnswer reads "instance=N pid=P …".
func parseAnswer(body string) (instance int, pid string, err error) {
	for _, word := range strings.Fields(body) {
		if value, ok := strings.CutPrefix(word, "instance="); ok {
			instance, err = strconv.Atoi(value)
		}
		if value, ok := strings.CutPrefix(word, "pid="); ok {
			pid = value
		}
	}
	if instance == 0 && err == nil {
		err = fmt.Errorf("no instance in %q", body)
	}
	return instance, pid, err
}
