// Package sdlog is a log/slog handler for programs run by systemd: each record is one journal entry
// whose attributes are journal fields, so that
//
//	journalctl UNITGEN_INSTANCE=3
//
// finds the entries about instance 3. Entries of any length go to the journal by package journal of
// go-systemd. If standard error is not the journal, or journald cannot be reached, the same line is
// written to standard error, with the priority of sd-daemon(3) ("<4>…").
//
// Source: systemd.journal-fields(7), sd-daemon(3).
package sdlog

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
)

// FieldPrefix is the prefix of the upper-case name of each attribute, so that it cannot be a field
// of journald.
const FieldPrefix = "UNITGEN_"

// Handler writes records to the journal or to a stream. It is safe for concurrent use.
type Handler struct {
	identifier string
	level      slog.Leveler
	attrs      []slog.Attr

	out *output // shared by all handlers that WithAttrs made of one
}

type output struct {
	mu     sync.Mutex
	send   func(message string, priority journal.Priority, fields map[string]string) error // nil: the stream alone
	stream io.Writer
	plain  bool // stream is a terminal or file, not a journal pipe: no priorities
}

// NewJournal returns a handler that sends to journald. Entries that it cannot send go to stream,
// which is a pipe to journald too.
func NewJournal(identifier string, stream io.Writer, level slog.Leveler) *Handler {
	h := NewJournalStream(identifier, stream, level)
	h.out.send = journal.Send
	return h
}

// NewJournalStream returns a handler that writes to stream, a pipe to journald, lines with a
// priority. They have no fields. journald knows whose a stream is from the start. Whose a message
// on its socket is journald looks up when it reads the message, and the process may have ended by
// then.
func NewJournalStream(identifier string, stream io.Writer, level slog.Leveler) *Handler {
	return &Handler{identifier: identifier, level: level, out: &output{stream: stream}}
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
	if h.out.send != nil && h.out.send(line, priority(r.Level), h.fields(attrs)) == nil {
		return nil
	} // else journald restarts: what is in the stream gets there
	if h.out.plain {
		_, err := fmt.Fprintf(h.out.stream, "%s: %s\n", h.identifier, line)
		return err
	}
	_, err := fmt.Fprintf(h.out.stream, "<%d>%s\n", priority(r.Level), line)
	return err
}

func (h *Handler) fields(attrs []slog.Attr) map[string]string {
	fields := map[string]string{"SYSLOG_IDENTIFIER": h.identifier}
	for _, a := range attrs {
		fields[FieldPrefix+fieldName(a.Key)] = a.Value.Resolve().String()
	}
	return fields
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

// message is what a reader of the journal sees: the text, then the attributes as key=value. A
// newline in a value would start a new entry on a stream, so it is quoted.
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

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
