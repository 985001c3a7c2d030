package relay

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/control"
)

func listen(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// start runs a balancer of app web, which counts what it is asked, and a relay.
func start(t *testing.T, idle time.Duration) (path string, calls *[]string, ended chan error) {
	t.Helper()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	calls = new([]string)
	balancer := &control.Server{Log: log, UID: os.Getuid(), Handle: func(_ context.Context, r *control.Request) (any, error) {
		*calls = append(*calls, r.Method)
		return map[string]string{"app": "web"}, nil
	}}
	served := make(chan error, 1)
	ln := listen(t, filepath.Join(dir, "unitgen/web/control"))
	go func() { served <- balancer.Serve(ctx, ln) }()
	path, ended = filepath.Join(dir, "status"), make(chan error, 1)
	relayed := listen(t, path)
	go func() { ended <- New(dir, log).Serve(ctx, relayed, os.Getuid(), idle) }()
	t.Cleanup(func() { cancel(); <-served; <-ended })
	return path, calls, ended
}

func TestRelaysStatusAndNothingElse(t *testing.T) {
	path, calls, _ := start(t, time.Hour)
	var got control.Status
	err := control.Call(t.Context(), path, control.MethodStatus, Ask{App: "web"}, &got)
	if err != nil || got.App != "web" {
		t.Errorf("got %+v, %v", got, err)
	}
	var refused *control.Error
	for _, method := range []string{"Close", "Drain", "Join", "Configure"} {
		if err := control.Call(t.Context(), path, method, Ask{App: "web"}, nil); !errors.As(err, &refused) || refused.Name != control.ErrMethodNotFound {
			t.Errorf("%s: %v", method, err)
		}
	}
	for _, name := range []string{"", "../web", "a/b", "web@1", "status"} {
		if err := control.Call(t.Context(), path, control.MethodStatus, map[string]string{"app": name}, nil); !errors.As(err, &refused) {
			t.Errorf("app %q: %v", name, err)
		}
	}
	if len(*calls) != 1 {
		t.Errorf("the balancer was asked %q", *calls)
	}
}

func TestEndsWhenNobodyAsks(t *testing.T) {
	_, _, ended := start(t, time.Millisecond)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
		ended <- nil
	case <-time.After(time.Minute):
		t.Error("it runs on")
	}
}
