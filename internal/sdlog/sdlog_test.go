package sdlog

import (
	"bytes"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"
)

func TestJournalEntryCarriesAttributesAsFields(t *testing.T) {
	var stream bytes.Buffer
	h := NewJournal("lbshim", &stream, slog.LevelInfo)
	type entry struct {
		message  string
		priority journal.Priority
		fields   map[string]string
	}
	var got []entry
	h.out.send = func(message string, priority journal.Priority, fields map[string]string) error {
		got = append(got, entry{message, priority, fields})
		return nil
	}
	log := slog.New(h).With("app", "web")
	log.Warn("instance is stuck, ignoring", "instance", 3, "detail", "two\nlines")
	log.Debug("not wanted")
	want := []entry{{"instance is stuck, ignoring app=web instance=3 detail=\"two\\nlines\"", journal.PriWarning, map[string]string{
		"SYSLOG_IDENTIFIER": "lbshim", "UNITGEN_APP": "web", "UNITGEN_INSTANCE": "3", "UNITGEN_DETAIL": "two\nlines"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("entries:\n%+v\nwant:\n%+v", got, want)
	}
	if stream.Len() != 0 {
		t.Errorf("also written to the stream: %q", stream.String())
	}
}

func TestFallsBackToStreamWithPriority(t *testing.T) {
	var stream bytes.Buffer
	h := NewJournal("lbshim", &stream, slog.LevelInfo)
	h.out.send = func(string, journal.Priority, map[string]string) error { return unix.ECONNREFUSED }
	slog.New(h).Error("read control client", "error", "EOF")
	if got, want := stream.String(), "<3>read control client error=EOF\n"; got != want {
		t.Errorf("line %q, want %q", got, want)
	}
}

func TestPlainStreamNamesTheProgram(t *testing.T) {
	var stream bytes.Buffer
	slog.New(NewStream("lbshim", &stream, slog.LevelInfo)).Info("path is steer")
	if got := stream.String(); !strings.HasPrefix(got, "lbshim: path is steer\n") {
		t.Errorf("line %q", got)
	}
}
