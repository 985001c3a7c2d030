package explain

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/systemd"
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

// The journal may be read in the middle of the latest run: then the run before has the reason.
func TestRunThatIsNotOver(t *testing.T) {
	const unit = "shop@2.service"
	spawn := func(id string) []entry {
		return []entry{{"INVOCATION_ID": id, "UNIT": unit, "_PID": "31", "_UID": "0", "PRIORITY": "3", "MESSAGE": unit + ": Changing to the requested working directory failed: Permission denied"},
			{"INVOCATION_ID": id, "UNIT": unit, "_PID": "31", "_UID": "0", "PRIORITY": "3", "MESSAGE_ID": messageSpawnFailed, "ERRNO": "13", "EXECUTABLE": "/bin/true",
				"MESSAGE": unit + ": Failed at step CHDIR spawning /bin/true: Permission denied"}}
	}
	exit := entry{"INVOCATION_ID": "1", "UNIT": unit, "_PID": "1", "_UID": "0", "PRIORITY": "5", "MESSAGE_ID": messageExit, "EXIT_CODE": "exited", "EXIT_STATUS": "200",
		"MESSAGE": unit + ": Main process exited, code=exited, status=200/CHDIR"}
	c := shop()
	c.set.workingDirectory = "/nowhere"
	c.state = systemd.UnitState{Name: unit, LoadState: "loaded", ActiveState: "activating", SubState: "start", Result: "success", InvocationID: "2"}
	c.past = group(append(append(spawn("1"), exit), spawn("2")...), unit, true)
	c.addResult()
	if got := c.decide(t.Context()); got.What != "the working directory /nowhere does not exist" {
		t.Errorf("reason %q", got)
	}
}

// The journal may have PID 1's line about the end of a program before the program's own last lines. A
// user who may not sync it reads it again.
func TestLastWordsThatComeLate(t *testing.T) {
	const exit = `{"MESSAGE":"shop@2.service: Main process exited","MESSAGE_ID":"` + messageExit + `","EXIT_CODE":"exited","EXIT_STATUS":"1","INVOCATION_ID":"1","_PID":"1"}`
	const said = `{"MESSAGE":"no database","_SYSTEMD_INVOCATION_ID":"1","_PID":"7"}`
	for _, tt := range []struct {
		name, sync string // the exit status of journalctl --sync
		want       []string
	}{
		{"a user", "1", []string{"no database"}},
		{"root", "0", nil}, // the journal is complete, one look is enough
	} {
		dir := t.TempDir()
		script := "#!/bin/sh\n[ \"$*\" != --sync ] || exit " + tt.sync + "\necho '" + exit + "'\n[ ! -e " + dir + "/again ] || echo '" + said + "'\n: >" + dir + "/again\n"
		if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":/usr/bin:/bin")
		c := shop()
		c.state.Name = "shop@2.service"
		past, err := c.readJournal(t.Context(), time.Now())
		if err != nil || len(past) != 1 || !slices.Equal(past[0].said, tt.want) {
			t.Errorf("%s: %+v, %v; want words %q", tt.name, past, err, tt.want)
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

// A program can end with status 0 before PID 1 comes to start the command that waits for it. PID 1
// then calls the start a success, and that it starts the instance again is all that tells.
func TestEndThatNobodySaw(t *testing.T) {
	const unit = "shop@2.service"
	run := func(id string, more ...entry) []entry {
		start := []entry{{"INVOCATION_ID": id, "UNIT": unit, "_PID": "1", "_UID": "0", "PRIORITY": "6", "MESSAGE": "Starting " + unit},
			{"INVOCATION_ID": id, "UNIT": unit, "_PID": "1", "_UID": "0", "PRIORITY": "6", "MESSAGE": unit + ": Deactivated successfully."}}
		return append(start, more...)
	}
	again := entry{"INVOCATION_ID": "1", "UNIT": unit, "_PID": "1", "_UID": "0", "PRIORITY": "6", "MESSAGE_ID": messageRestarts}
	stopped, waits, running := systemd.UnitState{ActiveState: "inactive", SubState: "dead"},
		systemd.UnitState{ActiveState: "activating", SubState: "auto-restart"}, systemd.UnitState{ActiveState: "activating", SubState: "start"}
	for _, tt := range []struct {
		name    string
		entries []entry
		state   systemd.UnitState // of the latest run
		want    bool
	}{
		{"the app was stopped", run("1"), stopped, false},
		{"before the next start", run("1"), waits, true},
		{"in the next run", append(run("1", again), run("2")...), running, true},
	} {
		c := shop()
		c.past = group(tt.entries, unit, true)
		c.state = tt.state
		c.state.Name, c.state.LoadState, c.state.Result, c.state.InvocationID = unit, "loaded", "success", c.past[0].id
		c.addResult()
		got := c.decide(t.Context())
		if strings.HasPrefix(got.What, "the program ended with exit status 0") != tt.want {
			t.Errorf("%s: reason %q", tt.name, got)
		}
	}
}
