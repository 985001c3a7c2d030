// Package relay answers "what is the status of APP?" for a program that may not speak with
// balancers itself: the one that answers scrapes. Control sockets are root's, and who may write to
// one may also stop the app. The relay is root, by number and without capabilities; it speaks with
// its one client and with balancers, has no network and no bus, and knows one method.
//
// A question starts a balancer that has crashed, and none that is being stopped (see
// cmd/lbshim-balancer/agent.go). One whose app goes idle in the very moment of the question starts again,
// for as long as --idle-exit= says.
//
// It costs a process for as long as somebody asks, and one JSON round trip more for each answer.
package relay

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
)

// Path is where PID 1 listens for the relay. No app can be named so.
const Path = "/run/unitgen/status"

// Idle is how long after the last answer the relay ends: longer than its client waits from one
// scrape to the next by default.
const Idle = 90 * time.Second

// most is how many balancers are asked at a time; more callers wait.
const most = 16

// Relay answers method Status of interface io.unitgen.Shim, whose parameter app names the app. Use
// New.
type Relay struct {
	runtimeDir string // /run
	log        *slog.Logger
	slots      chan struct{}
	answered   chan struct{}
}

// New makes a relay for one call of Serve.
func New(runtimeDir string, log *slog.Logger) *Relay {
	return &Relay{runtimeDir: runtimeDir, log: log, slots: make(chan struct{}, most), answered: make(chan struct{})}
}

// Serve answers user uid and root on ln, which it closes, until ctx ends or nobody has asked for
// the time idle.
func (r *Relay) Serve(ctx context.Context, ln *net.UnixListener, uid int, idle time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watch sync.WaitGroup
	defer watch.Wait()
	watch.Go(func() {
		defer cancel()
		timer := time.NewTimer(idle)
		defer timer.Stop()
		for {
			select {
			case <-r.answered:
				timer.Reset(idle)
			case <-timer.C:
				return
			case <-ctx.Done():
				return
			}
		}
	})
	defer cancel()
	return (&control.Server{Handle: r.handle, Log: r.log, UID: uid}).Serve(ctx, ln)
}

func (r *Relay) handle(ctx context.Context, call *control.Request) (any, error) {
	for _, fd := range call.FDs {
		unix.Close(fd)
	}
	if call.Method != control.MethodStatus {
		return nil, &control.Error{Name: control.ErrMethodNotFound, Reason: "no such method: " + call.Method}
	}
	var p struct {
		App string `json:"app"`
	}
	if err := call.Decode(&p); err != nil {
		return nil, err
	}
	name, err := app.ParseName(p.App)
	if err != nil {
		return nil, err
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var answer json.RawMessage
	err = control.Call(ctx, name.ControlPath(r.runtimeDir), control.MethodStatus, struct{}{}, &answer)
	select {
	case r.answered <- struct{}{}:
	case <-ctx.Done():
	}
	return answer, err
}

// Ask are the parameters of method Status of the relay.
type Ask struct {
	App app.Name `json:"app"`
}
