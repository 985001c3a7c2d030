package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// load is closed-loop HTTP load of some clients.
type load struct {
	span      time.Duration
	clients   int
	keepAlive bool
}

// result is what one turn of load has seen.
type result struct {
	ok, failed int
	elapsed    time.Duration
	pids       map[string]int // answers by process, of kept connections: connections
}

// put loads address for l.span.
func (l load) put(ctx context.Context, address string) result {
	ctx, cancel := context.WithTimeout(ctx, l.span)
	defer cancel()
	results := make([]result, l.clients)
	began := time.Now()
	var clients sync.WaitGroup
	for i := range results {
		clients.Go(func() { results[i] = l.client(ctx, address, i) })
	}
	clients.Wait()
	all := result{elapsed: time.Since(began), pids: make(map[string]int)}
	for _, r := range results {
		all.ok += r.ok
		all.failed += r.failed
		for pid, n := range r.pids {
			all.pids[pid] += n
		}
	}
	return all
}

// endOfTurn is how long before the end of a turn an error may be the end's own: deadlines of sockets are not quite that of
// the context.
const endOfTurn = 20 * time.Millisecond

// client makes one request after another until ctx ends. Its source address is its own, so that the ports of one address
// do not run out in TIME_WAIT.
func (l load) client(ctx context.Context, address string, number int) result {
	r := result{pids: make(map[string]int)}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(number/250), byte(number%250+1))}}
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now().Add(time.Second)) })
			err = l.requests(ctx, conn, &r)
			stop()
			conn.Close()
		}
		if end, _ := ctx.Deadline(); err != nil && time.Until(end) > endOfTurn {
			r.failed++
		}
	}
	return r
}

// requests makes one request on conn, or as many as ctx allows.
func (l load) requests(ctx context.Context, conn net.Conn, r *result) error {
	reader := bufio.NewReaderSize(conn, 1024)
	for first := true; first || l.keepAlive && ctx.Err() == nil; first = false {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
			return err
		}
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("status %s", answer.Status)
		}
		r.ok++
		if first {
			r.pids[strings.TrimSpace(string(body))]++
		}
	}
	return nil
}

// spread is the fewest and the most connections of an instance.
func (r result) spread() (s [2]int) {
	first := true
	for _, n := range r.pids {
		if first {
			s = [2]int{n, n}
		}
		first = false
		s[0], s[1] = min(s[0], n), max(s[1], n)
	}
	return s
}
