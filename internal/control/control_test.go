package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
)

// serve runs a server for handle until the test ends and returns its socket's path.
func serve(t *testing.T, handle Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := &Server{Handle: handle, Log: slog.New(slog.DiscardHandler), UID: os.Getuid()}
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the socket's path belongs to PID 1 and must stay: %v", err)
		}
	})
	return path
}

func dialed(t *testing.T, path string) *client {
	t.Helper()
	c, err := dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCallAnswersWithParameters(t *testing.T) {
	path := serve(t, func(_ context.Context, r *Request) (any, error) {
		var p struct{ Instance int }
		if err := r.Decode(&p); err != nil {
			return nil, err
		}
		return map[string]string{"said": fmt.Sprintf("%s %d", r.Method, p.Instance)}, nil
	})
	c := dialed(t, path)
	for i := range 3 { // one connection serves many calls
		var got struct{ Said string }
		if err := c.call(t.Context(), "Status", map[string]int{"instance": i}, &got); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("Status %d", i); got.Said != want {
			t.Errorf("said %q, want %q", got.Said, want)
		}
	}
}

func TestDescriptorsArriveWithTheirCall(t *testing.T) {
	path := serve(t, func(_ context.Context, r *Request) (any, error) {
		defer sock.CloseAll(r.FDs)
		var text []string
		for _, fd := range r.FDs {
			f := os.NewFile(uintptr(fd), "passed")
			b, err := io.ReadAll(f)
			if err != nil {
				return nil, err
			}
			text = append(text, string(b))
		}
		return map[string][]string{"text": text}, nil
	})
	var fds []int
	for _, text := range []string{"one", "two"} {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(p[1], []byte(text)); err != nil {
			t.Fatal(err)
		}
		unix.Close(p[1])
		defer unix.Close(p[0])
		fds = append(fds, p[0])
	}
	var got struct{ Text []string }
	if err := dialed(t, path).call(t.Context(), "Join", nil, &got, fds...); err != nil {
		t.Fatal(err)
	}
	if strings.Join(got.Text, " ") != "one two" {
		t.Errorf("descriptors gave %q", got.Text)
	}
}

func TestRefusalsAreErrorsWithAName(t *testing.T) {
	path := serve(t, func(_ context.Context, r *Request) (any, error) {
		if r.Method == "Drain" {
			return nil, &Error{Name: ErrNoSuchInstance, Reason: "no instance 9"}
		}
		return nil, errors.New("plain")
	})
	c := dialed(t, path)
	for method, want := range map[string]Error{
		"Drain": {ErrNoSuchInstance, "no instance 9"},
		"Other": {ErrInvalid, "plain"},
	} {
		var got *Error
		if err := c.call(t.Context(), method, nil, nil); !errors.As(err, &got) || *got != want {
			t.Errorf("%s: error %v, want %+v", method, err, want)
		}
	}
}

func TestForeignInterfaceIsRefused(t *testing.T) {
	path := serve(t, func(context.Context, *Request) (any, error) { return nil, nil })
	c := dialed(t, path)
	if err := c.wire.write(call{Method: "org.example.Thing.Do"}); err != nil {
		t.Fatal(err)
	}
	_, err := c.receive(t.Context(), nil)
	var refused *Error
	if !errors.As(err, &refused) || refused.Name != ErrMethodNotFound {
		t.Errorf("error %v, want %s", err, ErrMethodNotFound)
	}
}

func TestStreamGivesEveryReply(t *testing.T) {
	path := serve(t, func(_ context.Context, r *Request) (any, error) {
		if err := r.Send("draining"); err != nil {
			return nil, err
		}
		return "drained", nil
	})
	var got []string
	err := dialed(t, path).stream(t.Context(), "Drain", nil, func(raw json.RawMessage) error {
		got = append(got, string(raw))
		return nil
	})
	if err != nil || strings.Join(got, " ") != `"draining" "drained"` {
		t.Errorf("replies %q, error %v", got, err)
	}
}

func TestHandlerStopsWhenItsClientGoes(t *testing.T) {
	entered, left := make(chan struct{}), make(chan struct{})
	path := serve(t, func(ctx context.Context, _ *Request) (any, error) {
		close(entered)
		<-ctx.Done()
		close(left)
		return nil, ctx.Err()
	})
	c := dialed(t, path)
	if err := c.send(t.Context(), "Drain", false, nil); err != nil {
		t.Fatal(err)
	}
	<-entered
	c.Close()
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Fatal("the handler still waits for a client that is gone")
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	path := serve(t, func(ctx context.Context, _ *Request) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := dialed(t, path).call(ctx, "Drain", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestOverlongMessageEndsTheConnection(t *testing.T) {
	path := serve(t, func(context.Context, *Request) (any, error) { return nil, nil })
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go conn.Write(bytes.Repeat([]byte("x"), MaxMessage+4096)) // fails when the server hangs up
	if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
}

// FuzzAnswer feeds bytes of a hostile client to the server's parser: it may refuse, never panic or
// leak a descriptor.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"method":"io.unitgen.Shim.Status"}`))
	f.Add([]byte(`{"method":"io.unitgen.Shim.Drain","parameters":{"instance":1},"more":true}`))
	f.Add([]byte(`{"method":"io.unitgen.Shim."}`))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, message []byte) {
		ours, theirs := pair(t)
		defer ours.Close()
		defer theirs.Close()
		s := &Server{Log: slog.New(slog.DiscardHandler), Handle: func(_ context.Context, r *Request) (any, error) {
			var v map[string]any
			return v, r.Decode(&v)
		}}
		if err := s.answer(t.Context(), &wire{conn: ours}, inbound{message: message}); err != nil {
			return // not a call: the connection ends
		}
		reply, _, err := (&wire{conn: theirs}).read()
		if err != nil || !json.Valid(reply) {
			t.Errorf("reply %q, error %v", reply, err)
		}
	})
}

func pair(t *testing.T) (a, b *net.UnixConn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	open := func(fd int) *net.UnixConn {
		file := os.NewFile(uintptr(fd), "pair")
		defer file.Close()
		conn, err := net.FileConn(file)
		if err != nil {
			t.Fatal(err)
		}
		return conn.(*net.UnixConn)
	}
	return open(fds[0]), open(fds[1])
}

// A shim that was killed in a reload leaves its socket with PID 1, where nobody accepts.
func TestCallEndsWhenNobodyAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for name, call := range map[string]func(*client) error{
		"Call": func(c *client) error { return c.call(context.Background(), "Status", struct{}{}, nil) },
		"Take": func(c *client) error { _, err := c.take(context.Background(), "Close", struct{}{}); return err },
	} {
		c := dialed(t, path)
		c.answer = 10 * time.Millisecond
		if err := call(c); !errors.Is(err, ErrNoAnswer) || !isDown(err) {
			t.Errorf("%s: %v, want %v, which is tried again", name, err, ErrNoAnswer)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := dialed(t, path).call(ctx, "Status", struct{}{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the caller's context", err)
	}
}

// A tool that is newer than the shim learns it from the refusal.
func TestUnknownParametersAreRefused(t *testing.T) {
	path := serve(t, func(_ context.Context, r *Request) (any, error) {
		var p struct {
			Instance int `json:"instance"`
		}
		return p, r.Decode(&p)
	})
	c := dialed(t, path)
	if err := c.call(t.Context(), "Drain", map[string]any{"instance": 1}, nil); err != nil {
		t.Errorf("known parameters: %v", err)
	}
	err := c.call(t.Context(), "Drain", map[string]any{"instance": 1, "gently": true}, nil)
	var refused *Error
	if !errors.As(err, &refused) || refused.Name != ErrUnknownParameter || isDown(err) {
		t.Fatalf("error %#v, want %s", err, ErrUnknownParameter)
	}
	for _, want := range []string{"older", "Drain", `"gently"`, "systemctl restart"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}
