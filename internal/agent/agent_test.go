package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// serve runs a server and returns its address.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// says returns a server's answer to what a client sends, which may be nothing.
func says(t *testing.T, addr, sent string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, sent); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("sent %q: %v", sent, err)
	}
	return string(answer)
}

func fixed(state State) func(context.Context) (State, error) {
	return func(context.Context) (State, error) { return state, nil }
}

func TestAgentLineAndHTTPOnOneListener(t *testing.T) {
	for _, c := range []struct {
		state State
		line  string
		code  int
	}{
		{State{"api", Up, 75, 4, 3}, "ready up 75%\n", 200},
		{State{"api", Up, 100, 4, 4}, "ready up 100%\n", 200},
		{State{"api", Up, 0, 500, 1}, "ready up 1%\n", 200}, // "up 0%" would drain the host
		{State{"api", Drain, 100, 4, 4}, "drain\n", 503},
		{State{"api", Maint, 0, 4, 0}, "maint\n", 503},
		{State{"api", Down, 0, 4, 0}, "down\n", 503},
	} {
		t.Run(c.state.State, func(t *testing.T) {
			addr := serve(t, &Server{App: "api", Ask: fixed(c.state)})
			for _, sent := range []string{"", "agent\n", "GET\n", "get /health HTTP/1.1\r\n\r\n"} {
				if got := says(t, addr, sent); got != c.line {
					t.Errorf("agent check that sends %q is answered %q, want %q", sent, got, c.line)
				}
			}
			resp, err := http.Get("http://" + addr + "/health")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var got State
			if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got != c.state || resp.StatusCode != c.code {
				t.Errorf("HTTP: status %d, body %+v, error %v, want %d %+v", resp.StatusCode, got, err, c.code, c.state)
			}
			if head := says(t, addr, "HEAD / HTTP/1.0\r\n\r\n"); !strings.HasSuffix(head, "\r\n\r\n") || !strings.Contains(head, fmt.Sprint(c.code)) {
				t.Errorf("HEAD is answered %q", head)
			}
		})
	}
}

func TestOtherRequestsAreRefused(t *testing.T) {
	addr := serve(t, &Server{Ask: func(context.Context) (State, error) {
		t.Error("the shim was asked")
		return State{}, nil
	}})
	for sent, want := range map[string]string{
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n": "HTTP/1.1 405 ",
		"GET nonsense\r\n\r\n": "HTTP/1.1 400 ",
		"GET / HTTP/1.1\r\nX: " + strings.Repeat("x", maxRequest): "HTTP/1.1 400 ",
	} {
		// What is left unread makes the kernel reset the connection, behind the answer or before
		// it.
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, sent)
		answer := make([]byte, len(want))
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != want {
			t.Errorf("sent %.30q: answer %q, error %v, want %q", sent, answer, err, want)
		}
		conn.Close()
	}
}

// However many clients come at once, the shim is asked once.
func TestTheShimIsAskedOnceForMany(t *testing.T) {
	var asked atomic.Int32
	s := &Server{App: "api", Log: slog.New(slog.DiscardHandler)}
	synctest.Test(t, func(t *testing.T) {
		s.Ask = func(context.Context) (State, error) { asked.Add(1); return State{State: Up, Weight: 100}, nil }
		for range 1000 {
			s.state(t.Context())
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times at once, want 1", n)
		}
		time.Sleep(askEvery)
		s.state(t.Context())
		if n := asked.Load(); n != 2 {
			t.Errorf("asked %d times after %s, want 2", n, askEvery)
		}
	})
}

// A shim that is restarted must not take its host out of service; one that stays away must.
func TestLastAnswerStandsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{App: "api", Log: slog.New(slog.DiscardHandler), Ask: fixed(State{App: "api", State: Up, Weight: 100})}
		if got := s.state(t.Context()); got.State != Up {
			t.Fatalf("state %+v", got)
		}
		s.Ask = func(ctx context.Context) (State, error) { <-ctx.Done(); return State{}, ctx.Err() }
		time.Sleep(askEvery)
		if got := s.state(t.Context()); got.State != Up {
			t.Errorf("after %s without an answer: %+v, want up", answerTime, got)
		}
		time.Sleep(keep)
		if got := s.state(t.Context()); got.State != Unknown || Line(got) != "" {
			t.Errorf("after %s without an answer: %+v, line %q, want unknown and none", keep, got, Line(got))
		}
	})
}

func TestServeEndsWhenNobodyComes(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Idle: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}
	if err := s.Serve(t.Context(), ln); !errors.Is(err, ErrIdle) {
		t.Errorf("Serve: %v, want %v", err, ErrIdle)
	}
}

// FuzzRequest feeds bytes of a stranger: whatever they are, the answer is a line or a response, or
// none.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{"", "agent\n", "GET / HTTP/1.1\r\n\r\n", "HEAD / HTTP/1.0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "A", " ", "PROXY TCP4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		s := &Server{App: "api", Ask: fixed(State{State: Up, Weight: 50}), Log: slog.New(slog.DiscardHandler)}
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); s.serve(t.Context(), newCrowd().admit(theirs)) }()
		go func() { io.WriteString(ours, sent) }()
		answer, err := io.ReadAll(ours)
		<-done
		text := string(answer)
		if err != nil || text != "" && text != "ready up 50%\n" && !strings.HasPrefix(text, "HTTP/1.1 ") {
			t.Errorf("sent %q: answer %q, error %v", sent, text, err)
		}
	})
}
