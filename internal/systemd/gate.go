package systemd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"

	"github.com/godbus/dbus/v5"
)

const (
	daemonName = "org.freedesktop.DBus" // the bus itself, as a sender

	// maxHeader is far above the header of any message of the manager: the longest path has some
	// 800 bytes.
	maxHeader = 8 << 10
	// maxBody is far above the longest answer, a list of units.
	maxBody = 16 << 20
	// minHeader is the fixed part of each header, including the length of its fields.
	minHeader = 16
)

// gate passes messages from the bus itself or from the owner of the manager's name, and skips all
// others without decoding them. Any local user may send signals to any connection of the system
// bus, of any size up to 32 MiB, and a match rule selects broadcasts only. The bus stamps the
// sender on each message.
//
// The manager's name changes its owner when the manager executes itself again. The gate follows
// NameOwnerChanged, for which Conn has a match rule, in the order of the messages: hear runs on the
// goroutine that reads.
type gate struct {
	net.Conn
	r     *bufio.Reader
	begun bool // messages are read, no longer lines of the authentication
	pass  int  // bytes left of the message that is being let through

	mu       sync.Mutex
	owner    string // unique name of the manager; empty if it has none, or it is not known yet
	followed bool   // owner is what a signal told
}

func newGate(nc net.Conn) *gate { return &gate{Conn: nc, r: bufio.NewReaderSize(nc, 2*maxHeader)} }

// Write is net.Conn's. The client's BEGIN ends the authentication, and the same goroutine starts
// reading messages after it.
func (g *gate) Write(p []byte) (int, error) {
	if !g.begun && bytes.HasSuffix(p, []byte("BEGIN\r\n")) {
		g.begun = true
	}
	return g.Conn.Write(p)
}

// Read is net.Conn's. It returns bytes of one message at most.
func (g *gate) Read(p []byte) (int, error) {
	if !g.begun {
		return g.r.Read(p)
	}
	for g.pass == 0 {
		size, sender, err := g.next()
		if err != nil {
			return 0, err
		}
		if g.believes(sender) && size <= minHeader+maxHeader+maxBody {
			g.pass = size
			continue
		}
		if _, err := g.r.Discard(size); err != nil {
			return 0, err
		}
	}
	n, err := g.r.Read(p[:min(len(p), g.pass)])
	g.pass -= n
	return n, err
}

// next reads the header of the next message: its length and its sender. sender is empty if the
// header has none or it is too long to be the manager's.
func (g *gate) next() (size int, sender string, err error) {
	fixed, err := g.r.Peek(minHeader)
	if err != nil {
		return 0, "", err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if fixed[0] == 'B' {
		order = binary.BigEndian
	}
	fields := uint64(order.Uint32(fixed[12:]))
	whole := minHeader + (fields+7)&^7 + uint64(order.Uint32(fixed[4:]))
	if whole > 1<<30 { // the format ends at 128 MiB: this is no message
		return 0, "", io.ErrUnexpectedEOF
	}
	if fields > maxHeader {
		return int(whole), "", nil
	}
	header, err := g.r.Peek(minHeader + int(fields))
	if err != nil {
		return 0, "", err
	}
	return int(whole), senderOf(header, order), nil
}

// senderOf finds field SENDER in the header of a message, an array of pairs of code and variant;
// empty if there is none. Source: "Message Format" in the D-Bus specification.
func senderOf(header []byte, order binary.ByteOrder) string {
	at := minHeader
	text := func(start, length int) (string, bool) {
		end := start + length
		if length < 0 || end >= len(header) { // a zero byte follows
			return "", false
		}
		at = end + 1
		return string(header[start:end]), true
	}
	for {
		at = (at + 7) &^ 7
		if at+4 > len(header) || header[at+1] != 1 { // a signature of one letter
			return ""
		}
		code, kind := header[at], header[at+2]
		at += 4 // and then a value that is aligned to four bytes
		switch kind {
		case 'u':
			at += 4
		case 'g':
			if at >= len(header) {
				return ""
			}
			if _, ok := text(at+1, int(header[at])); !ok {
				return ""
			}
		case 's', 'o':
			if at+4 > len(header) {
				return ""
			}
			value, ok := text(at+4, int(order.Uint32(header[at:])))
			if !ok {
				return ""
			}
			if dbus.HeaderField(code) == dbus.FieldSender {
				return value
			}
		default:
			return ""
		}
	}
}

// believes reports whether messages of sender pass.
func (g *gate) believes(sender string) bool {
	if sender == daemonName {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return sender != "" && sender == g.owner
}

// hear follows the owner of the manager's name. It is called for each message that has passed,
// before the next one is read.
func (g *gate) hear(msg *dbus.Message) {
	if msg.Type != dbus.TypeSignal || !isNameOwnerChanged(msg) || len(msg.Body) != 3 || msg.Body[0] != busName {
		return
	}
	owner, ok := msg.Body[2].(string)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.owner, g.followed = owner, true
}

func isNameOwnerChanged(msg *dbus.Message) bool {
	return msg.Headers[dbus.FieldSender].Value() == daemonName && msg.Headers[dbus.FieldMember].Value() == "NameOwnerChanged"
}

// begin sets the owner that was asked for after the match rule was made. A signal since then knows
// better.
func (g *gate) begin(owner string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.followed {
		g.owner = owner
	}
}
