package explain

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/bindnotify"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/systemd"
)

// shop is an app as its failures have it.
func shop() *caseFile {
	return &caseFile{
		Question: Question{App: "shop"}, number: 2,
		set: settings{dynamic: true, workingDirectory: "/", noExec: true, memoryMax: 200 << 20, app: app.App{
			Name: "shop", Command: []string{"/bin/true"}, Listen: []app.Listen{{Port: 3000}}, StartTimeout: 5 * time.Second,
		}},
	}
}

// What cannot be made to happen in every guest.
func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name string
		run  invocation
		want Reason
	}{
		{"out of memory", invocation{result: "oom-kill", exitCode: "killed", exitStatus: "9"},
			Reason{What: "the kernel killed the program, as it needs more memory than MemoryMax=200M", Hint: "unitgen shop --max-memory=400M"}},
		{"watchdog", invocation{result: "watchdog", exitCode: "dumped", exitStatus: "6"},
			Reason{What: "the program did not send WATCHDOG=1 in time", Hint: "unitgen shop --watchdog="}},
		{"system call", invocation{result: "core-dump", exitCode: "dumped", exitStatus: "31"},
			Reason{What: "the sandbox killed the program at a system call that it refuses (SystemCallFilter=)", Hint: "unitgen shop -p SystemCallErrorNumber=EPERM"}},
		{"time-out of PID 1", invocation{result: "timeout", exitCode: "killed", exitStatus: "15"},
			Reason{What: "the program was not started within 5s", Hint: "unitgen shop --start-timeout=15s"}},
		{"waits for a database", invocation{result: "exit-code", seen: &Seen{Outcome: NotAccepted, Waited: 5 * time.Second,
			Sockets: []Socket{{Net: "tcp", Address: "192.0.2.1:5432", Waits: true}}}},
			Reason{What: "the program ran for 5s and accepted no connection: it waits for an answer of 192.0.2.1:5432", Hint: "unitgen shop --start-timeout=15s"}},
		{"Java's port", invocation{result: "exit-code", exitCode: "exited", exitStatus: "1", said: []string{
			"Exception in thread \"main\" java.lang.RuntimeException: start", "Caused by: java.net.BindException: Address already in use"}},
			Reason{What: "the program opens port 3000, which systemd holds for it, and was not given it; a port without an address is IPv6",
				Said: "java.net.BindException: Address already in use", Hint: "unitgen shop --listen=0.0.0.0:3000"}},
		{"IPv4 program", invocation{result: "exit-code", exitCode: "exited", exitStatus: "1", said: []string{"OSError: [Errno 98] Address already in use"},
			bound: bindnotify.State{Facts: []bindnotify.Fact{{Kind: bindnotify.OtherFamily, Address: netip.MustParseAddrPort("0.0.0.0:3000"), Listener: netip.MustParseAddrPort("[::]:3000")}}}},
			Reason{What: "the program binds 0.0.0.0:3000 with IPv4, but the app's listener there is IPv6",
				Said: "OSError: [Errno 98] Address already in use", Hint: "unitgen shop --listen=0.0.0.0:3000"}},
		{"Java started by a script", invocation{result: "exit-code", exitCode: "exited", exitStatus: "1", said: []string{
			"Error occurred during initialization of VM", "Failed to mark memory page as executable - check if grsecurity/PaX is enabled"}},
			Reason{What: "the program makes machine code while it runs, which the sandbox refuses",
				Said: "Failed to mark memory page as executable - check if grsecurity/PaX is enabled", Hint: "unitgen shop -p MemoryDenyWriteExecute=no"}},
		{"gunicorn", invocation{result: "exit-code", exitCode: "exited", exitStatus: "3", said: gunicornSetsUser},
			Reason{What: "the program changes its user, which the sandbox refuses", Said: gunicornSetsUser[len(gunicornSetsUser)-1],
				Hint: "unitgen shop -p SystemCallFilter=@setuid"}},
		{"start limit alone", invocation{result: "start-limit-hit"}, Reason{}},
	} {
		if got := shop().judge(t.Context(), &tt.run); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

var gunicornSetsUser = []string{
	`  File "/usr/lib/python3/dist-packages/gunicorn/workers/base.py", line 95, in init_process`,
	`    util.set_owner_process(self.cfg.uid, self.cfg.gid,`,
	`  File "/usr/lib/python3/dist-packages/gunicorn/util.py", line 151, in set_owner_process`,
	`    os.setgid(gid)`,
	`PermissionError: [Errno 1] Operation not permitted`,
}

// Whoever has allowed setuid(2) and is still refused it needs another user.
func TestChangesUserWithoutPrivilege(t *testing.T) {
	c := shop()
	c.set.calls = []string{"read", "setuid", "write"}
	got := c.judge(t.Context(), &invocation{result: "exit-code", exitCode: "exited", exitStatus: "3", said: gunicornSetsUser})
	if want := "unitgen shop --user=NAME"; got.Hint != want {
		t.Errorf("%+v, want hint %q", got, want)
	}
}

// PID 1 has begun the next run, or the app stops: the reason is that of the run before.
func TestReasonIsFoundInAnEarlierRun(t *testing.T) {
	c := shop()
	c.past = []*invocation{
		{id: "3", said: []string{"starting"}},
		{id: "2", result: "start-limit-hit"},
		{id: "1", result: "exit-code", exitCode: "exited", exitStatus: "3", said: []string{"no table"}},
	}
	want := Reason{What: "the program ended with exit status 3", Said: "no table", Hint: "unitgen logs shop@2"}
	if got := c.decide(t.Context()); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// The command that waits has seen the end of a program. As long as PID 1 has not, nobody knows its
// status, and the reason is that of the run before.
func TestEndThatPID1HasNotSeen(t *testing.T) {
	for code, want := range map[int]string{
		0: "the program ended with exit status 3",
		1: "the program ended with exit status 0; a program that goes to the background needs its option to stay in the foreground",
	} {
		c := shop()
		c.state = systemd.UnitState{InvocationID: "2", ExecMainCode: code}
		c.past = []*invocation{{id: "2"}, {id: "1", result: "exit-code", exitCode: "exited", exitStatus: "3", said: []string{"no table"}}}
		c.addSeen(Seen{Invocation: "2", Outcome: Ended})
		if got := c.decide(t.Context()); got.What != want {
			t.Errorf("code %d: %+v, want %q", code, got, want)
		}
	}
}

// A line that a user's program wrote just before it ended may have lost its unit: a run that ended
// in the same way has it.
func TestWordsThatLostTheirUnit(t *testing.T) {
	for _, tt := range []struct {
		users  bool
		status string // of the run before
		want   string
	}{
		{true, "3", "no table"},
		{true, "4", ""},
		{false, "3", ""},
	} {
		c := shop()
		c.UserUnits = tt.users
		c.past = []*invocation{{id: "2", result: "exit-code", exitCode: "exited", exitStatus: "3"},
			{id: "1", result: "exit-code", exitCode: "exited", exitStatus: tt.status, said: []string{"no table"}}}
		if got := c.decide(t.Context()); got.Said != tt.want {
			t.Errorf("%+v: %+v", tt, got)
		}
	}
}

// Who may not read the journal gets PID 1's words.
func TestReasonWithoutAJournal(t *testing.T) {
	for _, tt := range []struct {
		state systemd.UnitState
		want  string
	}{
		{systemd.UnitState{Result: "exit-code", ExecMainCode: 1, ExecMainStatus: 1}, "exit status 1"},
		{systemd.UnitState{Result: "exit-code", ExecMainCode: 1, ExecMainStatus: 203}, "exit status 203/EXEC"},
		{systemd.UnitState{Result: "core-dump", ExecMainStatus: 11}, "signal SEGV"},
		{systemd.UnitState{Result: "exit-code", ExecMainCode: 2, ExecMainStatus: 15}, "not ready in time"},
		{systemd.UnitState{Result: "oom-kill"}, "out of memory"},
		{systemd.UnitState{Result: "success"}, ""},
	} {
		c := shop()
		c.state = tt.state
		if got := c.decide(t.Context()); got.What != tt.want {
			t.Errorf("%+v: %q, want %q", tt.state, got.What, tt.want)
		}
	}
}

// Every Node.js program uses io_uring: one that waits for its database does not bind by that.
func TestIOUringIsTheLastGuess(t *testing.T) {
	s := Seen{Outcome: NotAccepted, Waited: time.Second, Sockets: []Socket{{Net: "tcp", Address: "192.0.2.1:5432", Waits: true}}}
	s.NoteBinding("shop", bindnotify.State{Facts: []bindnotify.Fact{{Kind: bindnotify.UsesIOUring, Program: "node"}}})
	if got, want := s.String(), "the program ran for 1s and accepted no connection: it waits for an answer of 192.0.2.1:5432"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.Sockets = nil
	const want = "the program ran for 1s and accepted no connection: it listens nowhere; it uses io_uring, and the balancer cannot see a bind " +
		"by io_uring: switch io_uring off in the program"
	if got := s.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestNoteIsReadBackAndForgotten(t *testing.T) {
	dir := t.TempDir()
	s := Seen{Invocation: "1", Outcome: NotAccepted, Waited: time.Second, Addresses: []string{"[::]:80"}, Sockets: []Socket{{Net: "udp", Address: "0.0.0.0:53"}}}
	if err := s.Write(dir, 7); err != nil {
		t.Fatal(err)
	}
	got, at, err := ReadSeen(dir, 7)
	if err != nil || got.String() != s.String() || time.Since(at) > time.Minute {
		t.Errorf("%+v of %s, %v; want %+v", got, at, err, s)
	}
	if err := Forget(dir, 0); err != nil {
		t.Error(err)
	}
	if _, _, err := ReadSeen(dir, 7); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a forgotten note: %v", err)
	}
	if err := Forget(dir, 7); err != nil {
		t.Error(err)
	}
}

// Lines are of the run that journald names, PID 1's too; a line of a process that has gone is of
// the run before it.
func TestGroup(t *testing.T) {
	const unit = "shop@2.service"
	pid1 := func(id, invocation, message string, more ...string) entry {
		e := entry{"_PID": "1", "_UID": "0", "UNIT": unit, "MESSAGE_ID": id, "INVOCATION_ID": invocation, "_SYSTEMD_INVOCATION_ID": "of init.scope", "MESSAGE": unit + ": " + message}
		for i := 0; i < len(more); i += 2 {
			e[more[i]] = more[i+1]
		}
		return e
	}
	past := group([]entry{
		{"_SYSTEMD_INVOCATION_ID": "a", "MESSAGE": "hello", "_UID": "61234"},
		{"MESSAGE": []any{98.0, 121.0, 101.0, 255.0}, "_UID": "61234"},
		{"_SYSTEMD_INVOCATION_ID": "a", "MESSAGE": "instance 2 drained", "_UID": "0", "SYSLOG_IDENTIFIER": "shop"},
		{"_SYSTEMD_INVOCATION_ID": "a", "MESSAGE": "instance 2 lies", "_UID": "61234", "SYSLOG_IDENTIFIER": "lbshim", "_COMM": "lbshim"},
		pid1(messageExit, "a", "Main process exited, code=exited, status=1/FAILURE", "EXIT_CODE", "exited", "EXIT_STATUS", "1"),
		pid1(messageExit, "a", "Control process exited, code=exited, status=1/FAILURE", "EXIT_CODE", "exited", "EXIT_STATUS", "9"),
		pid1(messageFailed, "a", "Failed with result 'exit-code'.", "UNIT_RESULT", "exit-code"),
		{"_SYSTEMD_INVOCATION_ID": "b", "MESSAGE": "again", "_UID": "61234"},
	}, unit, true)
	if len(past) != 2 || past[0].id != "b" || past[1].id != "a" {
		t.Fatalf("runs %+v, want b and a", past)
	}
	if a := past[1]; len(a.said) != 3 || a.said[1] != "bye" || a.said[2] != "instance 2 lies" || a.exitCode != "exited" || a.exitStatus != "1" || a.result != "exit-code" {
		t.Errorf("run a is %+v", a)
	}
	if past[0].ended() {
		t.Error("run b has not ended")
	}
}

// A user who may not make journald write what it has may read the journal before the line with the
// errno is in it.
func TestMissingInterpreterWithoutErrno(t *testing.T) {
	script := filepath.Join(t.TempDir(), "run")
	if err := os.WriteFile(script, []byte("#!/nowhere/ruby\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	got := shop().judge(t.Context(), &invocation{result: "exit-code", exitCode: "exited", exitStatus: "203", executable: script})
	if want := script + " is a script for /nowhere/ruby, which does not exist"; got.What != want {
		t.Errorf("reason %q, want %q", got, want)
	}
}

// What the command around the program says is not the program's.
func TestWaiterIsNotTheProgram(t *testing.T) {
	for _, text := range []string{"instance 1 is not ready: the program ended", "readiness is not checked: a single instance cannot be tried with classic BPF instance=1"} {
		var in invocation
		in.add(entry{"MESSAGE": text, "_UID": "1300"}, "app@1.service", false)
		if len(in.said) > 0 {
			t.Errorf("the program has said %q", in.said)
		}
	}
}
