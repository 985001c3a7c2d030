package explain

import (
	"encoding/json"
	"strings"
	"testing"
)

// What programs log has no bound of its own: as much is read as counts, and the command that prints
// on is ended.
func TestJournalIsReadToABound(t *testing.T) {
	const most = 1 << 16
	for _, tt := range []struct {
		script string
		want   int
		fails  bool
	}{
		{"printf 12345", 5, false},
		{"exec yes", most, false},
		{"printf 12345; exit 1", 5, true},
	} {
		out, err := readBounded(t.Context(), most, "sh", "-c", tt.script)
		if len(out) != tt.want || (err != nil) != tt.fails {
			t.Errorf("%s: %d bytes, %v; want %d", tt.script, len(out), err, tt.want)
		}
	}
}

// Without --all journalctl prints null for a field that is too long.
func TestMessageThatIsTooLong(t *testing.T) {
	for text, want := range map[string]string{`{"MESSAGE":null}`: tooLong, `{"MESSAGE":"a: b"}`: "a: b", `{}`: ""} {
		var e entry
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		var in invocation
		in.add(e, "app@1.service", false)
		if got := strings.Join(in.said, "|"); got != want {
			t.Errorf("%s: the program has said %q, want %q", text, got, want)
		}
	}
}
