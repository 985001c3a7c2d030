// Package sdlog is a log/slog handler for programs run by systemd: each record is one journal entry whose attributes are
// journal fields, so that
//
//	journalctl UNITGEN_INSTANCE=3
//
// finds what concerns instance 3. Where standard error is not the journal, or the journal cannot be reached, it writes
// the same line there, with the priority as sd-daemon(3) has it ("<4>…").
//
// Source: systemd.journal-fields(7), "Native Journal Protocol" in systemd's documentation, sd-daemon(3).
package sdlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
)

// JournalSocket is where journald takes native messages.
const JournalSocket = "/run/systemd/journal/socket"

// FieldPrefix stands before the upper-case name of each attribute, so that no field of journald's own is met.
const FieldPrefix = "UNITGEN_"

// Handler writes records to the journal or to a stream. It is safe for concurrent use.
type Handler struct {
	identifier string
	level      slog.Leveler
	attrs      []slog.Attr

	out *output // shared by all handlers that WithAttrs made of one
}

type output struct {
	mu      sync.Mutex
	journal *net.UnixConn // nil: not the journal
	stream  io.Writer
	plain   bool // stream is a terminal or file, not a journal pipe: no priorities
}

// NewJournal returns a handler that sends to the journal's socket at path and falls back to stream. If the socket cannot
// be reached it uses stream alone. The connection lives as long as the process.
func NewJournal(identifier, path string, stream io.Writer, level slog.Leveler) *Handler {
	h := NewStream(identifier, stream, level)
	h.out.plain = false
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		h.out.journal = conn
	}
	return h
}

// NewStream returns a handler that writes plain lines to stream, as for a terminal.
func NewStream(identifier string, stream io.Writer, level slog.Leveler) *Handler {
	return &Handler{identifier: identifier, level: level, out: &output{stream: stream, plain: true}}
}

// Enabled is part of slog.Handler.
func (h *Handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs is part of slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(append([]slog.Attr(nil), h.attrs...), attrs...)
	return &c
}

// WithGroup is part of slog.Handler. Journal fields are flat, so groups are not kept.
func (h *Handler) WithGroup(string) slog.Handler { return h }

// Handle is part of slog.Handler.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	attrs := append([]slog.Attr(nil), h.attrs...)
	r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a); return true })
	line := message(r.Message, attrs)
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	if h.out.journal != nil {
		if _, err := h.out.journal.Write(h.entry(r, line, attrs)); err == nil {
			return nil
		}
		// journald restarts or the entry is too long for a datagram: the line on the stream still gets there.
	}
	if h.out.plain {
		_, err := fmt.Fprintf(h.out.stream, "%s: %s\n", h.identifier, line)
		return err
	}
	_, err := fmt.Fprintf(h.out.stream, "<%d>%s\n", priority(r.Level), line)
	return err
}

func (h *Handler) entry(r slog.Record, line string, attrs []slog.Attr) []byte {
	var b bytes.Buffer
	field(&b, "MESSAGE", line)
	field(&b, "PRIORITY", strconv.Itoa(priority(r.Level)))
	field(&b, "SYSLOG_IDENTIFIER", h.identifier)
	for _, a := range attrs {
		field(&b, FieldPrefix+fieldName(a.Key), a.Value.Resolve().String())
	}
	return b.Bytes()
}

// field writes one field; a value with a newline has its length before it instead of "=".
func field(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	if strings.IndexByte(value, '\n') < 0 {
		b.WriteByte('=')
	} else {
		b.WriteByte('\n')
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(value))))
	}
	b.WriteString(value)
	b.WriteByte('\n')
}

func fieldName(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

// message is what a reader of the journal sees: the text, then the attributes as key=value. A newline in a value would
// start a new entry on a stream, so it is quoted.
func message(text string, attrs []slog.Attr) string {
	var b strings.Builder
	b.WriteString(text)
	for _, a := range attrs {
		v := a.Value.Resolve().String()
		if v == "" || strings.ContainsAny(v, " \"\n\t") {
			v = strconv.Quote(v)
		}
		fmt.Fprintf(&b, " %s=%s", a.Key, v)
	}
	return b.String()
}

func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}
