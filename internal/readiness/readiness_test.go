package readiness

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/process"
)

// fakeShim answers as the shim of an app at one address. What waits is up to accepted.
func fakeShim(t *testing.T, address string, accepted func(ctx context.Context) error) (path string, ports <-chan uint16) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "control")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	probed := make(chan uint16, 16)
	handle := func(ctx context.Context, r *control.Request) (any, error) {
		switch r.Method {
		case "Addresses":
			return map[string]any{"path": "steer", "addresses": []string{address}}, nil
		case "Probe":
			var p struct {
				Instance int
				Address  string
				Port     uint16
			}
			if err := r.Decode(&p); err != nil {
				return nil, err
			}
			probed <- p.Port
			if err := r.Send(struct{}{}); err != nil {
				return nil, err
			}
			<-ctx.Done()
			return struct{}{}, nil
		case "Accepted":
			return struct{}{}, accepted(ctx)
		case "Listening":
			if err := r.Send(map[string]any{"missing": []string{address}, "refused": "it listens on port 1"}); err != nil {
				return nil, err
			}
			return struct{}{}, accepted(ctx)
		}
		return nil, errors.New("unexpected " + r.Method)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := &control.Server{Handle: handle, Log: slog.New(slog.DiscardHandler), UID: os.Getuid()}
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path, probed
}

func accepts(context.Context) error { return nil }

func never(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestProbeComesFromThePortThatTheShimWasTold(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	path, ports := fakeShim(t, ln.Addr().String(), accepts)
	if err := (Check{Control: path, Instance: 1}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if from, told := netip.MustParseAddrPort(conn.RemoteAddr().String()).Port(), <-ports; from != told {
		t.Errorf("the probe came from port %d, the shim was told %d", from, told)
	}
}

func TestProgramThatNeverAccepts(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	path, _ := fakeShim(t, ln.Addr().String(), never)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // long enough to get to the wait, on any machine
	defer cancel()
	err = Check{Control: path, Instance: 1}.Wait(ctx)
	if !errors.Is(err, ErrNotAccepted) {
		t.Errorf("error %v, want %v", err, ErrNotAccepted)
	}
}

func TestProgramThatEndsIsNotWaitedFor(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	path, _ := fakeShim(t, ln.Addr().String(), never)
	ctx, end := context.WithCancelCause(t.Context())
	result := make(chan error, 1)
	go func() { result <- Check{Control: path, Instance: 1}.Wait(ctx) }()
	end(process.ErrEnded)
	if err := <-result; !errors.Is(err, process.ErrEnded) {
		t.Errorf("error %v, want %v", err, process.ErrEnded)
	}
}

// What a program for Node.js ended of is said, also when it ended before that was asked for.
func TestProgramThatEndsOfARefusalIsExplained(t *testing.T) {
	ctx, end := context.WithCancelCause(t.Context())
	end(process.ErrEnded)
	path, _ := fakeShim(t, "127.0.0.1:80", never)
	err := Check{Control: path, Instance: 1, Node: true}.Wait(ctx)
	if want := "the program could not listen: it listens on port 1"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestHTTPCheckWaitsForAGoodAnswer(t *testing.T) {
	tries := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries++
		if r.RequestURI != "/health%20y?part=db" || tries < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	path, _ := fakeShim(t, server.Listener.Addr().String(), accepts)
	if err := (Check{Control: path, Instance: 1, HTTPPath: "/health%20y?part=db#now"}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tries != 3 {
		t.Errorf("%d tries, want 3", tries)
	}
}

// A try that the end of the time has cut off does not hide what the program answered before.
func TestHTTPCheckSaysWhatItWasAnsweredBeforeItsTimeWasUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tries := 0
	err := Check{HTTPPath: "/health"}.answered(ctx, func() (net.Conn, error) {
		if tries++; tries == 1 {
			return nil, errors.New("connection refused")
		}
		cancel()
		return nil, ctx.Err()
	})
	if want := Finding("check GET /health: connection refused"); err != want {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestHTTPCheckSaysWhatTheLastAnswerWas(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	path, _ := fakeShim(t, server.Listener.Addr().String(), accepts)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := Check{Control: path, Instance: 1, HTTPPath: "/health"}.Wait(ctx)
	if want := "check GET /health: answer is 404 Not Found"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestStatusLines(t *testing.T) {
	for line, want := range map[string]int{
		"HTTP/1.1 200 OK":            200,
		"HTTP/1.0 204":               204,
		"HTTP/1.1 404 Not Found":     404,
		"HTTP/1.1 399 ":              399,
		"HTTP/1.1 0200 OK":           0,
		"HTTP/1.1 -20 OK":            0,
		"HTTP/1.1 OK":                0,
		"HTTP/2 200 OK":              0,
		"SSH-2.0-OpenSSH_9.2p1":      0,
		"220 mail.example.org ESMTP": 0,
		"":                           0,
	} {
		code, _, err := parseStatus(line)
		if code != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v, want %d", line, code, err, want)
		}
	}
}
