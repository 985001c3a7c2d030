//go:build integration

package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// late is how long an answer takes, longer than all steps of a drain that go by time.
const late = 10 * time.Second

// testLate reloads programs that are at work, by protocols of which only the program knows what is
// under way: on both paths what was asked for is answered, and clients that are never idle hold
// nothing up.
func testLate(t *testing.T, s *system, version string) {
	var waits sync.WaitGroup
	for _, path := range []string{"steer", "handoff"} {
		for _, protocol := range []string{"h2c", "h2", "ws", "net"} {
			if left := map[string]string{"steer": "h2c", "handoff": "h2"}; protocol == left[path] && !rig.All() {
				continue // TLS makes no difference to what is under way
			}
			a := newApp(t, s, "", path+"-"+protocol)
			a.n = 1
			options := []string{"unitgen", a.name, a.size(), fmt.Sprintf("--listen=%d", a.port), "--soak=200ms",
				"--working-directory=/srv", "--now"}
			if path == "handoff" {
				options = append(options, "--path=handoff", "--strategy=round-robin")
			}
			s.MustExec(t, append(options, "--", nodeOf(version), "late.js", protocol, fmt.Sprint(late.Milliseconds()))...)
			a.awaitUp()
			waits.Go(func() { a.reloadAtWork(protocol) })
		}
	}
	waits.Wait()
}

func (a *app) reloadAtWork(protocol string) {
	pid := "pid=" + a.MustShow(a.t, a.instance(1), "MainPID") + "\n"
	answered := make(chan string, 1)
	steady := func() (requests int) { return 0 }
	switch protocol {
	case "ws":
		ws := a.webSocket("/")
		// A request in the same tick of the kernel's clock as the answer before it would be waited
		// for ten seconds and no longer, see sockdiag.Stat. This takes several ticks.
		a.MustExec(a.t, "systemctl", "is-active", a.name)
		go func() {
			defer close(answered) // ask may end the test
			answered <- ws.ask("job")
		}()
	case "net":
		conn := a.connect()
		io.WriteString(conn, "job")
		go func() {
			answer, err := io.ReadAll(conn)
			answered <- fmt.Sprint(string(answer), orNothing(err))
		}()
	default:
		client := a.http2Client(protocol)
		began := make(chan struct{})
		go func() { answered <- get2(a.t.Context(), client, "/late", began) }()
		<-began
		steady = a.steadily(client)
	}
	a.MustExec(a.t, "systemctl", "reload", a.name)
	if got := <-answered; got != pid {
		a.t.Errorf("%s: what was under way was answered with %q, want %q", a.name, got, pid)
	}
	if n := steady(); strings.HasPrefix(protocol, "h2") && n < 20 {
		a.t.Errorf("%s: a client that is never idle had %d answers", a.name, n)
	}
	if n := a.logged("timed_out=true"); n > 0 {
		a.t.Errorf("%s: %d drains ran to their time-out", a.name, n)
	}
	if after := "pid=" + a.MustShow(a.t, a.instance(1), "MainPID") + "\n"; after == pid {
		a.t.Errorf("%s was not reloaded", a.name)
	}
}

func orNothing(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// http2Client speaks HTTP/2 alone, on one connection as long as that takes requests.
func (a *app) http2Client(protocol string) func(ctx context.Context, path string) (*http.Response, error) {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{DialContext: a.DialContext, Protocols: &protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	a.t.Cleanup(transport.CloseIdleConnections)
	scheme := map[string]string{"h2c": "http", "h2": "https"}[protocol]
	return func(ctx context.Context, path string) (*http.Response, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s://127.0.0.1:%d%s", scheme, a.port, path), nil)
		if err != nil {
			return nil, err
		}
		return (&http.Client{Transport: transport, Timeout: limit}).Do(request)
	}
}

// get2 returns the answer, or the error. It closes began, if there is one, when the client has a
// connection.
func get2(ctx context.Context, client func(context.Context, string) (*http.Response, error), path string, began chan struct{}) string {
	if began != nil {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { close(began) }})
	}
	response, err := client(ctx, path)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if response.ProtoMajor != 2 {
		return response.Proto
	}
	return string(body) + orNothing(err)
}

// steadily asks one request after another, on the connection of the late one as long as that takes
// any, until the function that it returns is called, which tells how many were answered.
func (a *app) steadily(client func(context.Context, string) (*http.Response, error)) (stop func() int) {
	done, count := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if got := get2(a.t.Context(), client, "/", nil); !strings.HasPrefix(got, "pid=") {
					a.t.Errorf("%s: request %d was answered with %q", a.name, n, got)
				}
				n++
			case <-done:
				count <- n
				return
			}
		}
	}()
	return func() int { close(done); return <-count }
}
