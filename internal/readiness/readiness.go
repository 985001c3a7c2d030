// Package readiness finds out whether an instance can serve, for programs that do not send READY=1
// to PID 1. It makes a connection that the kernel steers to this one instance, though it is not on
// the ring. Then it waits until the instance has accepted the connection, or has answered a request
// on it.
//
// It runs as ExecStartPost= of the instance's unit, so PID 1 calls the instance active only when it
// can serve. Programs that send READY=1 (Type=notify) do not need it.
package readiness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/process"
	"github.com/unitgen/unitgen/internal/sock"
)

// Check says how one instance is tried.
type Check struct {
	Control  string // path of the shim's control socket
	Instance int
	Node     bool   // the program is a Node.js one on the handoff path: it is ready when it listens on all addresses
	Message  bool   // the program is a Node.js one: it must also have sent "ready"
	HTTPPath string // request that must be answered with 2xx or 3xx; empty: accepting is enough
}

// Wait returns when the instance accepts connections at every address of the app and, with
// HTTPPath, answers at the first address. When ctx ends, Wait returns an error that says what is
// missing. The error is ErrUnsupported if connections cannot be steered to one instance.
//
// The probes are made in the network namespace of the calling thread, which must be that of the
// listeners.
func (c Check) Wait(ctx context.Context) error {
	err := c.wait(ctx)
	cause := context.Cause(ctx)
	if err == nil || !errors.Is(cause, process.ErrEnded) {
		return err
	}
	if c.Node || c.Message {
		if err := c.refusal(ctx); err != nil {
			return err
		}
	}
	return cause // whatever was cut off by it
}

func (c Check) wait(ctx context.Context) error {
	if c.Node {
		return c.listening(ctx)
	}
	addresses, handed, err := c.addresses(ctx)
	if err != nil {
		return err
	}
	switch {
	case handed && c.Message:
		return c.listening(ctx)
	case handed:
		return c.handed(ctx)
	}
	for _, a := range addresses {
		err := c.accepts(ctx, a)
		if errors.Is(err, ErrUnsupported) && c.Message {
			break // what it says itself is all that can be known
		}
		if err != nil {
			return err
		}
	}
	switch {
	case c.Message:
		return c.listening(ctx)
	case c.HTTPPath == "":
		return nil
	}
	return c.answered(ctx, func() (net.Conn, error) { return c.probe(ctx, addresses[0]) })
}

// accepts returns when the instance has accepted a probe at address.
func (c Check) accepts(ctx context.Context, address string) error {
	for again := true; again; {
		conn, err := c.probe(ctx, address)
		if err != nil {
			return err
		}
		again, err = c.accepted(ctx)
		conn.Close()
		if err != nil {
			if ctx.Err() != nil {
				err = ErrNotAccepted
			}
			return fmt.Errorf("wait for %s: %w", address, err)
		}
	}
	return nil
}

// ErrUnsupported says that no single instance can be tried, as the shim steers by classic BPF.
var ErrUnsupported = errors.New("a single instance cannot be tried here")

// ErrNotAccepted says that the program runs, and that time was up before it accepted a connection.
var ErrNotAccepted = errors.New("the program has not accepted a connection")

// Finding is an error that says what the program did instead of getting ready. Other errors mean
// that the check itself failed.
type Finding string

func (f Finding) Error() string { return string(f) }

// Addresses returns the addresses of the app.
func (c Check) Addresses(ctx context.Context) ([]string, error) {
	all, _, err := c.addresses(ctx)
	return all, err
}

// addresses returns the addresses of the app, and whether its connections are handed off.
func (c Check) addresses(ctx context.Context) (all []string, handed bool, err error) {
	var s control.Addresses
	if err := control.Call(ctx, c.Control, control.MethodAddresses, struct{}{}, &s); err != nil {
		return nil, false, err
	}
	if len(s.Addresses) == 0 {
		return nil, false, errors.New("ask shim for addresses: it has none")
	}
	return s.Addresses, s.Path == string(app.PathHandoff), nil
}

// portTries is how many ports choosePort tries if one is in use: most are free.
const portTries = 8

// probe connects to the instance at address; the caller closes the connection.
func (c Check) probe(ctx context.Context, address string) (net.Conn, error) {
	listener, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("parse address of the app: %w", err)
	}
	var failed []error
	for _, to := range sock.Local(listener) {
		conn, err := c.probeFrom(ctx, address, to)
		for tries := 0; errors.Is(err, unix.EADDRNOTAVAIL) && tries < portTries; tries++ {
			conn, err = c.probeFrom(ctx, address, to)
		}
		if err == nil || errors.Is(err, ErrUnsupported) {
			return conn, err
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

func (c Check) probeFrom(ctx context.Context, address string, to netip.AddrPort) (net.Conn, error) {
	s, err := bind(to)
	if err != nil {
		return nil, err
	}
	parameters := control.ProbeParameters{Instance: c.Instance, Address: address, Port: s.port}
	held, err := control.Hold(ctx, c.Control, control.MethodProbe, parameters)
	if err != nil {
		s.close()
		if refused, ok := errors.AsType[*control.Error](err); ok && refused.Name == control.ErrUnsupported {
			return nil, ErrUnsupported
		}
		return nil, err
	}
	defer held.Close() // ends the probe
	return s.connect()
}

// accepted returns when the instance has accepted its probe, or with again when that proves
// nothing: the program changed its listener while it was probed, which it does a few times at most.
func (c Check) accepted(ctx context.Context) (again bool, err error) {
	var answer control.Accepted
	err = control.Wait(ctx, c.Control, control.MethodAccepted, control.Instance{Instance: c.Instance}, &answer)
	return answer.Again, err
}

// How often a request is repeated that was not answered as wanted: a program that warms up answers
// 503 for a while.
const (
	retryFirst = 50 * time.Millisecond
	retryMax   = time.Second
)

// answered repeats an HTTP request until it succeeds or ctx ends. Its error is that of the last try
// which ctx did not cut off: only that says what is wrong.
func (c Check) answered(ctx context.Context, connect func() (net.Conn, error)) error {
	pause := retryFirst
	var why error
	for {
		err := c.request(ctx, connect)
		if err == nil {
			return nil
		}
		if why == nil || ctx.Err() == nil {
			why = err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return Finding(fmt.Sprintf("check GET %s: %v", c.HTTPPath, why))
		}
		pause = min(2*pause, retryMax)
	}
}

func (c Check) request(ctx context.Context, connect func() (net.Conn, error)) error {
	conn, err := connect()
	if err != nil {
		return err
	}
	return get(ctx, conn, c.HTTPPath)
}
