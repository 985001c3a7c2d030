// Package control is the shim's control protocol: Varlink over the unix stream socket
// /run/unitgen/APP/control.
//
// A message is one JSON object that ends in a NUL byte, at most MaxMessage bytes; descriptors
// travel as SCM_RIGHTS beside its first byte. A call names a method of interface io.unitgen.Shim;
// with "more" it may be answered several times, each but the last reply marked "continues". So
// varlinkctl(1) can talk to a shim too:
//
//	varlinkctl call /run/unitgen/app/control io.unitgen.Shim.Status {}
//
// It is not for connections that are balanced: one call costs a goroutine and a JSON round trip.
//
// Source: https://varlink.org/Wire-Protocol, unix(7).
package control

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
)

// Interface is the name before the dot of every method.
const Interface = "io.unitgen.Shim"

// MaxMessage bounds one message: the longest, the status of 512 instances, has some 100 kB.
const MaxMessage = 1 << 20

// MaxFDs bounds the descriptors beside one message. An app has few listeners; the kernel's own
// limit is 253.
const MaxFDs = 64

// call is a request.
type call struct {
	Method     string          `json:"method"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
	More       bool            `json:"more,omitempty"`
}

// Reply is an answer. Error is empty or a qualified name such as io.unitgen.Shim.NoSuchInstance.
type Reply struct {
	Parameters json.RawMessage `json:"parameters,omitempty"`
	Continues  bool            `json:"continues,omitempty"`
	Error      string          `json:"error,omitempty"`
}

// Error is what a call was refused with.
type Error struct {
	Name   string // qualified, as in Reply.Error
	Reason string
}

func (e *Error) Error() string {
	if e.Reason == "" {
		return e.Name
	}
	return e.Reason
}

// Errors of the interface.
const (
	ErrNoSuchInstance = Interface + ".NoSuchInstance"
	ErrInvalid        = "org.varlink.service.InvalidParameter"
	ErrMethodNotFound = "org.varlink.service.MethodNotFound"
	// ErrUnknownParameter is an ErrInvalid of a caller that is newer than the shim.
	ErrUnknownParameter = Interface + ".UnknownParameter"
	ErrUnsupported      = Interface + ".Unsupported"
	ErrEnding           = Interface + ".Ending" // the shim is about to end: ask the next one
	ErrListenerRefused  = Interface + ".ListenerRefused"
)

// wire frames messages on one connection. It owns neither the connection nor descriptors it has
// handed out.
type wire struct {
	conn *net.UnixConn
	buf  []byte // bytes read and not yet taken
	fds  []int  // descriptors read and not yet taken
}

// read returns the next message and the descriptors that came with it, which the caller then owns.
// At a clean end of the stream the error is io.EOF.
func (w *wire) read() (message []byte, fds []int, err error) {
	for {
		if i := bytes.IndexByte(w.buf, 0); i >= 0 {
			message = w.buf[:i]
			w.buf = w.buf[i+1:]
			fds, w.fds = w.fds, nil
			return message, fds, nil
		}
		if len(w.buf) >= MaxMessage {
			return nil, nil, fmt.Errorf("read message: over %d bytes", MaxMessage)
		}
		if err := w.fill(); err != nil {
			return nil, nil, err
		}
	}
}

func (w *wire) fill() error {
	var (
		chunk [4096]byte
		oob   = make([]byte, unix.CmsgSpace(4*MaxFDs))
	)
	n, oobn, flags, _, err := w.conn.ReadMsgUnix(chunk[:], oob)
	if oobn > 0 {
		fds, ferr := sock.Rights(oob[:oobn]) // close-on-exec is Go's (net.UnixConn.ReadMsgUnix)
		w.fds = append(w.fds, fds...)
		if ferr != nil {
			return ferr
		}
	}
	if err != nil {
		return err
	}
	if flags&unix.MSG_CTRUNC != 0 || len(w.fds) > MaxFDs {
		return fmt.Errorf("read message: over %d descriptors", MaxFDs)
	}
	if n == 0 {
		if len(w.buf) > 0 {
			return io.ErrUnexpectedEOF
		}
		return io.EOF
	}
	w.buf = append(w.buf, chunk[:n]...)
	return nil
}

func (w *wire) write(v any, fds ...int) error {
	message, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	message = append(message, 0)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, _, err := w.conn.WriteMsgUnix(message, oob, nil)
	if err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	if n < len(message) {
		_, err = w.conn.Write(message[n:])
	}
	return err
}

// drop closes descriptors that nobody took.
func (w *wire) drop() {
	sock.CloseAll(w.fds)
	w.fds = nil
}

// errorOf turns a reply into an error, nil if it is none.
func (r Reply) errorOf() error {
	if r.Error == "" {
		return nil
	}
	var detail struct{ Reason, Parameter string }
	if len(r.Parameters) > 0 {
		// A reply whose detail cannot be read still is an error: its name says enough.
		_ = json.Unmarshal(r.Parameters, &detail)
	}
	if detail.Reason == "" {
		detail.Reason = detail.Parameter
	}
	return &Error{Name: r.Error, Reason: detail.Reason}
}
