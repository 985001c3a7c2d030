//go:build integration

package sdlog

import (
	"bytes"
	"log/slog"
	"os/exec"
	"strings"
	"testing"
)

// An entry that no datagram can hold reaches the journal of a real journald with its fields, and
// not the stream.
func TestRealLongEntry(t *testing.T) {
	var stream bytes.Buffer
	detail := strings.Repeat("0123456789", 40<<10)
	slog.New(NewJournal("sdlog-test", &stream, slog.LevelInfo)).Info("long", "detail", detail)
	if stream.Len() != 0 {
		t.Errorf("%d bytes were written to the stream", stream.Len())
	}
	if out, err := exec.CommandContext(t.Context(), "journalctl", "--sync").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), "journalctl", "--all", "--quiet", "--output=cat", "--output-fields=UNITGEN_DETAIL", "SYSLOG_IDENTIFIER=sdlog-test").Output()
	if err != nil || strings.TrimSuffix(string(out), "\n") != detail {
		t.Errorf("the journal has a field of %d bytes, %v, want %d", len(out)-1, err, len(detail))
	}
}
