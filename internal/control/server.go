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
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
)

// MaxClients bounds the connections served at a time: each of 512 instances may join and drain at
// once, and a few people look on. Further clients wait in the socket's backlog.
const MaxClients = 1100

// Request is one call as the handler sees it.
type Request struct {
	Method     string // without the interface's name
	Parameters json.RawMessage
	More       bool
	FDs        []int // owned by the handler
	// Send gives an answer that is not the last; only where More is set. The last one is what the
	// handler returns.
	Send func(result any) error
}

// Decode reads the parameters into v. Unknown ones are refused: they are of a newer tool, whose
// request would be carried out by half.
func (r *Request) Decode(v any) error {
	if len(r.Parameters) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(r.Parameters)) // one value: it was parsed as part of the call
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return &Error{Name: ErrUnknownParameter, Reason: fmt.Sprintf("the running balancer is older than the program that calls it: "+
				"its %s knows no parameter %s (systemctl restart has the new one run)", r.Method, field)}
		}
		return &Error{Name: ErrInvalid, Reason: fmt.Sprintf("parse parameters of %s: %v", r.Method, err)}
	}
	return nil
}

// WithFDs is a result with copies of descriptors beside it, which stay the handler's and must be
// open until it is sent.
type WithFDs struct {
	Result any
	FDs    []int
}

// Handler answers a request. ctx ends when the client goes away or the server stops. An *Error is
// sent as it is, any other error as ErrInvalid.
type Handler func(ctx context.Context, r *Request) (result any, err error)

// Server answers control clients.
type Server struct {
	Handle Handler
	Log    *slog.Logger
	// UID is, beside root, the user who may call.
	UID int
}

// Serve accepts clients on ln until ctx ends or accepting fails for good. It closes ln, every
// client's connection, and returns when all handlers have.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Closing must not unlink: the path belongs to PID 1.
	ln.SetUnlinkOnClose(false)
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	slots := make(chan struct{}, MaxClients)
	for {
		slots <- struct{}{}
		conn, err := ln.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept control client: %w", err)
		}
		clients.Go(func() {
			defer func() { <-slots }()
			s.serveClient(ctx, conn)
		})
	}
}

func (s *Server) serveClient(ctx context.Context, conn *net.UnixConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	if err := s.authorize(conn); err != nil {
		s.Log.Warn("control client refused", "error", err)
		return
	}
	w := &wire{conn: conn}
	calls := make(chan inbound)
	var reader sync.WaitGroup
	defer reader.Wait()
	reader.Go(func() { s.readCalls(ctx, cancel, w, calls) })
	for {
		select {
		case in := <-calls:
			if err := s.answer(ctx, w, in); err != nil {
				cancel() // unblocks the reader
				if !errors.Is(err, net.ErrClosed) {
					s.Log.Debug("answer control client, ignoring", "error", err)
				}
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// inbound is one message with its descriptors, owned by the receiver.
type inbound struct {
	message []byte
	fds     []int
}

// readCalls passes on the client's calls and ends ctx when the client goes away, so that a handler
// that waits for something on its behalf stops waiting.
func (s *Server) readCalls(ctx context.Context, cancel context.CancelFunc, w *wire, calls chan<- inbound) {
	defer cancel()
	defer w.drop()
	for {
		message, fds, err := w.read()
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				s.Log.Warn("read control client, ignoring", "error", err)
			}
			return
		}
		select {
		case calls <- inbound{bytes.Clone(message), fds}:
		case <-ctx.Done():
			sock.CloseAll(fds)
			return
		}
	}
}

// authorize checks the caller's user a second time: the socket's mode is 0600 already, but a mode
// can be edited.
func (s *Server) authorize(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var (
		cred    *unix.Ucred
		credErr error
	)
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return fmt.Errorf("getsockopt SO_PEERCRED: %w", credErr)
	}
	if cred.Uid != 0 && int(cred.Uid) != s.UID {
		return fmt.Errorf("user %d of process %d is not root", cred.Uid, cred.Pid)
	}
	return nil
}

func (s *Server) answer(ctx context.Context, w *wire, in inbound) error {
	var c call
	fds := in.fds
	if err := json.Unmarshal(in.message, &c); err != nil {
		sock.CloseAll(fds)
		return fmt.Errorf("parse call: %w", err)
	}
	method, ok := strings.CutPrefix(c.Method, Interface+".")
	if !ok || method == "" {
		sock.CloseAll(fds)
		return w.write(refusal(&Error{Name: ErrMethodNotFound, Reason: "no such method: " + c.Method}))
	}
	r := &Request{Method: method, Parameters: c.Parameters, More: c.More, FDs: fds}
	r.Send = func(result any) error {
		raw, err := json.Marshal(result)
		if err != nil {
			return fmt.Errorf("encode reply: %w", err)
		}
		return w.write(Reply{Parameters: raw, Continues: true})
	}
	result, err := s.Handle(ctx, r)
	if err != nil {
		return w.write(refusal(err))
	}
	var beside []int
	if with, ok := result.(WithFDs); ok {
		result, beside = with.Result, with.FDs
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode reply: %w", err)
	}
	return w.write(Reply{Parameters: raw}, beside...)
}

func refusal(err error) Reply {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Name: ErrInvalid, Reason: err.Error()}
	}
	raw, _ := json.Marshal(struct {
		Reason string `json:"reason"`
	}{e.Reason}) // a struct of one string always encodes
	return Reply{Error: e.Name, Parameters: raw}
}
