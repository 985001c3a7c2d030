package explain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/bindnotify"
)

// journalLines is how many entries of an instance are read, latest first: some ten tracebacks.
// Earlier entries of a crash loop repeat the later ones.
const journalLines = 300

// mostJournal bounds the bytes that are read from the journal. Programs may log entries of a
// gigabyte, with a thousand fields of one name (systemd-journald.service(8), the native protocol),
// and root reads them within the balancer's MemoryMax=. So journalctl prints only the fields that
// are needed and, without --all, none of more than 4096 bytes.
const mostJournal = 8 << 20

// journalFields are those that are read.
const journalFields = "MESSAGE,MESSAGE_ID,PRIORITY,INVOCATION_ID,USER_INVOCATION_ID,_SYSTEMD_INVOCATION_ID,_PID,_UID,UNIT,USER_UNIT," +
	"EXECUTABLE,ERRNO,EXIT_CODE,EXIT_STATUS,COMMAND,UNIT_RESULT,_SYSTEMD_UNIT,_SYSTEMD_USER_UNIT"

// tooLong stands for a message that journalctl does not print.
const tooLong = "(a line of more than 4096 bytes)"

// shown is how long a program's line may be in a reason.
const shown = 300

// invocation is what the journal has of one run of an instance.
type invocation struct {
	id string

	said   []string // by the program, oldest first
	pid1   []string // PID 1's own lines of failure, without the unit's name
	result string   // UNIT_RESULT=: exit-code, signal, oom-kill, timeout, start-limit-hit, ...

	exitCode   string // of the main process: exited, killed, dumped; empty if PID 1 logged none, as for status 0
	exitStatus string // a number, of a signal too
	before     string // exit status of an ExecStartPre= command that failed
	restarts   bool   // PID 1 starts the instance again, so nobody asked for the end

	// A process that PID 1 could not make the program.
	spawnFailed bool
	executable  string
	errno       int

	seen  *Seen
	bound bindnotify.State // what is wrong with what the program bound, as its supervisor says
}

// ended reports whether the run is over, so that it has a reason. A process that PID 1 could not make
// the program ends a moment after it has said so.
func (in *invocation) ended() bool {
	return in.result != "" || in.exitCode != "" || in.seen != nil || in.restarts
}

// exited reports whether the program ended by itself. PID 1 logs no end with status 0. Usually the
// command that waits has seen that end. But if PID 1 was busy, the program had ended before PID 1
// started that command, and only the restart of the instance shows it.
func (in *invocation) exited() bool {
	return in.exitCode == "exited" || in.seen != nil && in.seen.Outcome == Ended || in.restarts && in.result == "" && in.exitCode == "" && in.seen == nil
}

// ofWaiter begins what the command says that waits for the program.
var ofWaiter = pattern(`^(instance \d+ is not ready|readiness is not checked): `)

// Identities of PID 1's messages (src/systemd/sd-messages.h).
const (
	messageSpawnFailed = "641257651c1b4ec9a8624d7a40a9e1e7"
	messageExit        = "98e322203f7a4ed290d09fe03c09fe15"
	messageFailed      = "d9b373ed55a64feb8242e02dbe79a49c"
	messageStartFailed = "be02cf6855d2428ba40df7e9d022f03d"
	messageRestarts    = "5eb03494b6584870a536b337290809b3"
)

// entry is a journal entry. Fields with bytes that are not text are lists of numbers, so values
// have type any.
type entry map[string]any

func (e entry) text(field string) string {
	switch v := e[field].(type) {
	case string:
		return v
	case []any: // bytes; or several fields of one name, of which the first counts
		if len(v) > 0 {
			if s, ok := v[0].(string); ok {
				return s
			}
		}
		b := make([]byte, 0, len(v))
		for _, n := range v {
			f, _ := n.(float64)
			b = append(b, byte(f))
		}
		return string(b)
	}
	return ""
}

// readJournal returns the runs of an instance since a moment, newest first. It asks for the unit,
// not for an invocation: PID 1 may have begun the next one. Only journald writes fields with "_".
func (c *caseFile) readJournal(ctx context.Context, since time.Time) ([]*invocation, error) {
	unit := c.state.Name
	// journald is a step behind the program, and only root may wait for it.
	behind := exec.CommandContext(ctx, "journalctl", "--sync").Run() != nil
	match := []string{"_SYSTEMD_UNIT=" + unit, "+", "_UID=0", "UNIT=" + unit}
	if c.UserUnits {
		uid := "_UID=" + strconv.Itoa(os.Getuid())
		match = []string{uid, "_SYSTEMD_USER_UNIT=" + unit, "+", uid, "USER_UNIT=" + unit}
		// Only PID 1 tells journald whose unit a program is. If one of a user's manager has gone when
		// journald looks, its entries have no unit. (1 of 8 of a program that ends at once, on 252.)
		if pid := c.lastProcess(ctx); pid != 0 {
			match = append(match, "+", uid, "_PID="+strconv.Itoa(pid))
		}
	}
	for look := 0; ; look++ {
		entries, err := readEntries(ctx, since, journalLines, match...)
		if err != nil {
			return nil, fmt.Errorf("read journal of %s: %w", unit, err)
		}
		past := group(entries, unit, !c.UserUnits && !c.set.isRoot())
		if !behind || look == looksAgain || !saidNothing(past) {
			return past, nil
		}
		select {
		case <-time.After(lookPause):
		case <-ctx.Done():
			return past, nil
		}
	}
}

// lastProcess is the main process of the last run, which may be over; 0 if it is not known.
func (c *caseFile) lastProcess(ctx context.Context) int {
	if c.Conn == nil {
		return 0
	}
	found, err := c.Conn.Properties(ctx, c.state.Name, "ExecMainPID")
	if err != nil {
		return 0
	}
	pid, _ := found["ExecMainPID"].(uint32)
	return int(pid)
}

// journald may read PID 1's line about the end of a program before the program's own last lines,
// which come over another socket. A user who may not sync the journal reads it again this often.
const (
	looksAgain = 5
	lookPause  = 100 * time.Millisecond
)

// saidNothing reports whether the program ended in the latest run that is over, and said nothing.
func saidNothing(past []*invocation) bool {
	at := slices.IndexFunc(past, (*invocation).ended)
	return at >= 0 && past[at].exited() && len(past[at].said) == 0
}

// readEntries runs journalctl(1) and returns entries, oldest first.
func readEntries(ctx context.Context, since time.Time, lines int, match ...string) ([]entry, error) {
	args := append([]string{"--quiet", "--no-pager", "--reverse", "--lines=" + strconv.Itoa(lines), "--output=json", "--output-fields=" + journalFields,
		fmt.Sprintf("--since=@%d.%06d", since.Unix(), since.Nanosecond()/1000)}, match...)
	out, err := readBounded(ctx, mostJournal, "journalctl", args...)
	if err != nil {
		return nil, err
	}
	var entries []entry
	for line := range bytes.Lines(out) {
		var e entry
		if json.Unmarshal(line, &e) == nil {
			entries = append(entries, e)
		}
	}
	slices.Reverse(entries)
	return entries, nil
}

// readBounded runs a command and returns at most the first bytes of its output.
func readBounded(ctx context.Context, most int64, argv0 string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv0, args...)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(pipe, most))
	if int64(len(out)) == most {
		cancel() // it writes on, and what is here is the latest
		_ = cmd.Wait()
		return out, nil
	}
	return out, errors.Join(err, cmd.Wait())
}

// group takes entries, oldest first, apart by invocation. apart says that root's lines are not the
// program's.
func group(entries []entry, unit string, apart bool) []*invocation {
	var past []*invocation
	byID := make(map[string]*invocation)
	id := ""
	for _, e := range entries {
		for _, field := range []string{"INVOCATION_ID", "USER_INVOCATION_ID", "_SYSTEMD_INVOCATION_ID"} {
			// The sender's field is the unit's if the program wrote the entry, and PID 1's if PID 1
			// did.
			if own := e.text(field); own != "" && (field[0] != '_' || e.text("_PID") != "1") {
				id = own
				break
			}
		} // an entry without any came from a process that had gone already: it is of the run before it
		in := byID[id]
		if in == nil {
			in = &invocation{id: id}
			byID[id] = in
			past = append([]*invocation{in}, past...)
		}
		in.add(e, unit, apart)
	}
	return past
}

// add adds one entry.
func (in *invocation) add(e entry, unit string, apart bool) {
	message := strings.TrimPrefix(e.text("MESSAGE"), unit+": ")
	if v, there := e["MESSAGE"]; there && v == nil {
		message = tooLong
	}
	switch id := e.text("MESSAGE_ID"); {
	case id == messageSpawnFailed:
		in.spawnFailed = true
		in.executable = e.text("EXECUTABLE")
		in.errno, _ = strconv.Atoi(e.text("ERRNO"))
		in.pid1 = append(in.pid1, printable(message))
	case id == messageExit && strings.HasPrefix(message, "Main process"):
		in.exitCode, in.exitStatus = e.text("EXIT_CODE"), e.text("EXIT_STATUS")
	case id == messageExit && e.text("COMMAND") == "ExecStartPre":
		in.before = e.text("EXIT_STATUS")
	case id == messageExit:
		// From a command around the program, whose message has the reason.
	case id == messageFailed:
		in.result = e.text("UNIT_RESULT")
	case id == messageStartFailed:
	case id == messageRestarts:
		in.restarts = true
	case e.text("UNIT")+e.text("USER_UNIT") == unit:
		if p, err := strconv.Atoi(e.text("PRIORITY")); err == nil && p <= 4 {
			in.pid1 = append(in.pid1, printable(message))
		}
	case apart && e.text("_UID") == "0", ofWaiter().MatchString(message):
		// The commands around the program record what they found in the note, see Seen. Their
		// identifier is the unit's. _COMM does not help: a process that becomes the program has its
		// earlier name there for a while.
	case strings.HasPrefix(message, bindnotify.Prefix):
		// Of what answers bind(). A program may write the same, and then says it of itself.
		if f, ok := bindnotify.ParseWords(message); ok {
			in.bound.Facts = append(in.bound.Facts, f)
		}
	case strings.HasPrefix(message, LauncherFailed):
		in.launchFailed(strings.TrimPrefix(message, LauncherFailed))
	default:
		in.said = append(in.said, printable(message))
	}
}

// LauncherFailed begins what lbshim says before it ends with EXIT_EXEC, as it could not become the
// program. The rest is the errno.
const LauncherFailed = "lbshim cannot execute the program: "

// launchFailed notes what PID 1 notes where it executes the program itself.
func (in *invocation) launchFailed(why string) {
	for _, errno := range []unix.Errno{unix.ENOENT, unix.EACCES, unix.ENOEXEC, unix.EPERM, unix.E2BIG, unix.ELOOP, unix.ENOTDIR, unix.ETXTBSY, unix.ENOMEM} {
		if why == errno.Error() {
			in.errno = int(errno)
		}
	}
	in.spawnFailed = true
}

// printable is text without what a terminal would obey. A program that wrote colours still says the
// same.
func printable(text string) string {
	text = escapes().ReplaceAllString(text, "")
	text = strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' {
			return ' '
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	text = strings.TrimRight(text, " ")
	if len(text) > shown {
		text = strings.ToValidUTF8(text[:shown], "") + "…"
	}
	return text
}
