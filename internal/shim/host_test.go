package shim

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/control"
)

func (b *bench) host() control.Host {
	b.t.Helper()
	h, err := b.hostState()
	if err != nil {
		b.t.Fatal(err)
	}
	return h
}

func TestHostSaysWhatIsUpByWeight(t *testing.T) {
	b := newBench(t, Options{Settings: control.Settings{Weights: []int{3, 1}}})
	if h := b.host(); h.State != "down" || h.Weight != 0 {
		t.Errorf("without an instance: %+v, want down", h)
	}
	b.up(1)
	b.up(2)
	if h := b.host(); h.State != "up" || h.Weight != 100 || h.Up != 2 || h.Instances != 2 {
		t.Errorf("both up: %+v", h)
	}
	b.service(2, "failed", "failed")
	if h := b.host(); h.State != "up" || h.Weight != 75 || h.Up != 1 {
		t.Errorf("the one of weight 3 up: %+v, want 75%%", h)
	}
	b.Shim.host.drained = time.Now()
	if h := b.host(); h.State != "drain" || h.Drained == 0 {
		t.Errorf("drained: %+v", h)
	}
	b.service(1, "failed", "failed")
	if h := b.host(); h.State != "down" || h.Drained == 0 {
		t.Errorf("drained, and no instance up: %+v, want down", h)
	}
	b.closed = true
	if h := b.host(); h.State != "maint" {
		t.Errorf("stopping: %+v, want maint", h)
	}
}

// What a shim does not know yet is no "down".
func TestHostIsNotJudgedBeforeStatesAreKnown(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	b.instances[1].adopted, b.instances[1].serviceKnown = true, false
	var refused *control.Error
	if h, err := b.hostState(); !errors.As(err, &refused) || refused.Name != control.ErrEnding {
		t.Errorf("state %+v, error %v, want to be asked again", h, err)
	}
}

// A drain ends when no connection is open, and not before the front has had time to notice.
func TestHostDrainWaitsForConnections(t *testing.T) {
	diag, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	b := newBenchWith(t, Options{}, inherited{diag: []int{diag}})
	b.up(1)
	sa := b.address().(*unix.SockaddrInet4)
	conn, err := net.DialTCP("tcp4", nil, &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port})
	if err != nil {
		t.Fatal(err)
	}
	b.Shim.host.drained = time.Now()
	done := make(chan error, 1)
	b.Shim.host.waiting = map[chan error]bool{done: true}
	look := func(after time.Duration) bool {
		b.lookHost(time.Now().Add(after))
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return true
		default:
			return false
		}
	}
	if look(2 * frontTime) {
		t.Fatal("the drain ended with a connection open")
	}
	conn.Close()
	inQueue, _, err := unix.Accept(b.listeners[1])
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(inQueue)
	b.Shim.host.counted = time.Time{}
	if look(0) {
		t.Fatal("the drain ended before the front has noticed")
	}
	if !look(4 * frontTime) {
		t.Fatal("the drain did not end without a connection")
	}
}

// Who waits for a drain that is taken back is told so.
func TestUndrainEndsTheWait(t *testing.T) {
	b := newBench(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			select {
			case f := <-b.requests:
				f()
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { cancel(); <-served }()
	call := func(method, parameters string) error {
		_, err := b.handle(ctx, &control.Request{Method: method, Parameters: json.RawMessage(parameters)})
		return err
	}
	if err := call(control.MethodHostDrained, "{}"); !errors.Is(err, errUndrained) {
		t.Errorf("wait without a drain: %v", err)
	}
	if err := call(control.MethodDrainHost, `{"drain":true}`); err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() { waited <- call(control.MethodHostDrained, "{}") }()
	for n := 0; n == 0; {
		if err := b.run1(ctx, func() error { n = len(b.Shim.host.waiting); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := call(control.MethodDrainHost, `{"drain":false}`); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; !errors.Is(err, errUndrained) {
		t.Errorf("wait for a drain that was taken back: %v", err)
	}
}
