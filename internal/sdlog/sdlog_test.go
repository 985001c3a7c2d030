package sdlog

import (
	"bytes"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestJournalEntryCarriesAttributesAsFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	journal, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	var stream bytes.Buffer
	log := slog.New(NewJournal("lbshim", path, &stream, slog.LevelInfo)).With("app", "web")
	log.Warn("instance is stuck, ignoring", "instance", 3, "detail", "two\nlines")
	log.Debug("not wanted")

	buf := make([]byte, 4096)
	n, err := journal.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	want := "MESSAGE=instance is stuck, ignoring app=web instance=3 detail=\"two\\nlines\"\n" +
		"PRIORITY=4\nSYSLOG_IDENTIFIER=lbshim\nUNITGEN_APP=web\nUNITGEN_INSTANCE=3\n" +
		"UNITGEN_DETAIL\n\x09\x00\x00\x00\x00\x00\x00\x00two\nlines\n"
	if got := string(buf[:n]); got != want {
		t.Errorf("entry:\n%q\nwant:\n%q", got, want)
	}
	if stream.Len() != 0 {
		t.Errorf("also written to the stream: %q", stream.String())
	}
}

func TestFallsBackToStreamWithPriority(t *testing.T) {
	var stream bytes.Buffer
	log := slog.New(NewJournal("lbshim", filepath.Join(t.TempDir(), "none"), &stream, slog.LevelInfo))
	log.Error("read control client", "error", "EOF")
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
