// Command go-http is a small HTTP server on sockets passed by systemd, that restarts without losing
// a request. The demo and the integration tests run it.
//
//	unitgen web --instances 3 --listen 3000 --now -- /path/to/go-http
//
//	GET /            instance=<INSTANCE or ?> pid=<pid> version=<APP_VERSION>
//	GET /slow?ms=N   the same, N milliseconds later
//	GET /peer        the address of the client
//	GET /told        the latest message (unitgen send, or another instance's)
//	GET /tell?to=N&text=T   sends one to instance N, or to all others
//
// It runs as it is on the steer path and on the handoff path (--path=handoff, or
// --listen=/run/web.sock). Without passed sockets it listens on PORT.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/unitgen/unitgen/activation"
)

// exitNotConfigured is EXIT_NOTCONFIGURED of systemd.exec(5): no sockets, and a restart will not
// bring any.
const exitNotConfigured = 6

// maxSlow keeps a typing error from holding a connection for days.
const maxSlow = 10 * time.Minute

func main() {
	ctx, stop := activation.StopSignal(context.Background())
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "go-http: %v\n", err)
		if errors.Is(err, activation.ErrNotPassed) {
			os.Exit(exitNotConfigured)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	passed, err := activation.Inherit()
	if err != nil {
		return err
	}
	defer passed.Close()
	listeners, err := listen(passed)
	if err != nil {
		return err
	}
	notifier, err := activation.NewNotifier()
	if err != nil {
		return err
	}
	defer notifier.Close()

	instance := os.Getenv("INSTANCE")
	if instance == "" {
		instance = "?"
	}
	told, err := messages(ctx)
	if err != nil {
		return err
	}
	defer told.Close()
	answer := fmt.Sprintf("instance=%s pid=%d version=%s\n", instance, os.Getpid(), os.Getenv("APP_VERSION"))
	server := &http.Server{Handler: routes(answer, told), ReadHeaderTimeout: 10 * time.Second}
	return activation.Serve(ctx, server, listeners, activation.ServeOptions{Notifier: notifier})
}

func listen(passed *activation.Descriptors) ([]net.Listener, error) {
	listeners, err := passed.AllListeners()
	port := os.Getenv("PORT")
	if !errors.Is(err, activation.ErrNotPassed) || port == "" {
		return listeners, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort("", port))
	return []net.Listener{l}, err
}

func routes(answer string, told *mailbox) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, answer)
	})
	mux.HandleFunc("GET /peer", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.RemoteAddr)
	})
	mux.HandleFunc("GET /told", told.last)
	mux.HandleFunc("GET /tell", told.tell)
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		ms, err := strconv.ParseUint(r.FormValue("ms"), 10, 32)
		if err != nil || time.Duration(ms)*time.Millisecond > maxSlow {
			http.Error(w, fmt.Sprintf("ms must be a number of milliseconds up to %d", maxSlow.Milliseconds()), http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(time.Duration(ms) * time.Millisecond):
			fmt.Fprint(w, answer)
		case <-r.Context().Done(): // the client has left
		}
	})
	return mux
}
