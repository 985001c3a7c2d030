package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"syscall"
	"time"
)

// runHTTP2 is a client with one HTTP/2 connection, on which quick requests are made beside slow
// ones, until ctx ends. Package net/http sends a request again only where the server has said that
// it did not begin it (GOAWAY, RFC 9113 section 6.8): so nothing else is hidden.
func (w *world) runHTTP2(ctx context.Context, a *app, r *rand.Rand) {
	t := newHTTP2(w)
	defer t.CloseIdleConnections()
	var streams sync.WaitGroup
	for _, stream := range []struct {
		pause time.Duration
		slow  int
	}{{300 * time.Millisecond, 0}, {500 * time.Millisecond, 1200}, {700 * time.Millisecond, 2500}} {
		r := rand.New(rand.NewPCG(r.Uint64(), 0))
		streams.Go(func() {
			for pause(ctx, jitter(r, stream.pause)) {
				path := "/"
				if stream.slow > 0 {
					path = fmt.Sprintf("/slow?ms=%d", stream.slow/3+r.IntN(stream.slow*2/3))
				}
				w.requestHTTP2(a, t, path)
			}
		})
	}
	streams.Wait()
}

// newHTTP2 returns a client of its own, whose user closes its connections.
func newHTTP2(w *world) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Transport{Protocols: protocols, DialContext: w.c.DialContext}
}

func (w *world) requestHTTP2(a *app, t *http.Transport, path string) {
	began, port := time.Now(), 0
	ctx, cancel := context.WithDeadline(context.Background(), began.Add(requestLimit))
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		port = c.Conn.LocalAddr().(*net.TCPAddr).Port
	}})
	err := func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.addr()+path, nil)
		if err != nil {
			return err
		}
		resp, err := t.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = readAnswer(resp)
		return err
	}()
	switch {
	case err == nil:
		w.ledger.count(a.name, func(n *counts) { n.ok++; n.slowest = max(n.slowest, time.Since(began)) })
	case errors.Is(err, syscall.ECONNREFUSED) && w.ledger.mayRefuse(a.name, began),
		errors.Is(err, syscall.ECONNRESET) && w.ledger.mayCut(a.name, began):
		w.ledger.count(a.name, func(n *counts) { n.refused++ })
	default:
		w.ledger.fail(failure{app: a.name, kind: "HTTP/2 " + path, port: port, began: began, ended: time.Now(), err: err})
	}
}
