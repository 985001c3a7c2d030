package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/wanted"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"unitgen": func() { os.Exit(run(context.Background(), scriptEnv())) }})
}

// scriptEnv is the outside world of the scripts: no manager, three processors, and $ROOT for the
// system's directories.
func scriptEnv() *env {
	cwd, _ := os.Getwd()
	return &env{
		args: os.Args[1:], getenv: os.Getenv, cwd: cwd, root: os.Getenv("ROOT"), euid: os.Geteuid(), userName: "alice",
		stdout: os.Stdout, stderr: os.Stderr, now: func() time.Time { return time.Unix(0, 0) },
		cpus: func() int { return 3 }, cpuNumbers: func() []int { return []int{0, 2, 5} },
		isCalendar: func(text string) bool { return text != "whenever" }, lbshim: "/usr/lib/unitgen/lbshim", version: "1.2.3",
		nodePath: wanted.AskNode,
		kernel:   func() string { return cmp.Or(os.Getenv("KERNEL"), "6.12.9") },
		exec:     func(argv []string) error { fmt.Printf("%q\n", argv); return nil },
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("ROOT", e.WorkDir+"/root")
			if err := os.Chmod(filepath.Dir(e.WorkDir), 0o755); err != nil { // apps start here, as users of their own
				return err
			}
			e.Setenv("LINES", "no\nunitgen: hint: rm -rf x")
			e.Setenv("HOME", e.WorkDir+"/home")
			// What the host has in PATH is no business of the tests; a program of theirs stands in
			// bin.
			e.Setenv("PATH", e.WorkDir+"/bin"+string(filepath.ListSeparator)+e.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "age": age, "fresh": fresh, "crlf": crlf, "fifo": fifo},
	})
}

// exits STATUS COMMAND [ARG…] runs a command and compares its exit status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg {
		ts.Fatalf("usage: exits STATUS COMMAND [ARG…]")
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// age FILE… gives files an old time stamp, by which fresh tells those that were written since.
func age(ts *testscript.TestScript, neg bool, args []string) {
	for _, file := range args {
		ts.Check(os.Chtimes(ts.MkAbs(file), time.Unix(1, 0), time.Unix(1, 0)))
	}
}

// crlf FILE gives a file the line ends of Windows.
func crlf(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, "\n", "\r\n")), 0o644))
}

// fifo FILE makes a named pipe.
func fifo(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(unix.Mkfifo(ts.MkAbs(args[0]), 0o755))
}

func fresh(ts *testscript.TestScript, neg bool, args []string) {
	for _, file := range args {
		st, err := os.Lstat(ts.MkAbs(file))
		ts.Check(err)
		if written := st.ModTime().Unix() != 1; written == neg {
			ts.Fatalf("%s was written: %v", file, written)
		}
	}
}

// Every option stands in the help text and in no other way, and every option of the text exists.
func TestHelpNamesAllOptions(t *testing.T) {
	var want, got []string
	new(options).flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		want = append(want, "--"+f.Name)
		if f.Shorthand != "" {
			want = append(want, "-"+f.Shorthand)
		}
	})
	for _, line := range strings.Split(helpText, "\n") {
		if len(line) > 80 {
			t.Errorf("line of %d columns: %q", len(line), line)
		}
		if m := regexp.MustCompile(`^  (-\w|  ) (--[a-z-]+)`).FindStringSubmatch(line); m != nil {
			got = append(got, m[2])
			if m[1] != "  " {
				got = append(got, m[1])
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("help has\n%q\nflags are\n%q", got, want)
	}
	for _, v := range verbs() {
		for _, name := range []string{v.name, v.alias} {
			if name != "" && !regexp.MustCompile(`(?m)^  ([a-z]+, )?`+name+`\b`).MatchString(helpText) {
				t.Errorf("help lacks verb %s", name)
			}
		}
	}
}

// No verb can name an app.
func TestVerbsAreNoNames(t *testing.T) {
	for _, v := range verbs() {
		for _, name := range []string{v.name, v.alias} {
			if _, err := app.ParseName(name); err == nil {
				t.Errorf("%q can name an app", name)
			}
		}
	}
}

// An app of 64 instances, from the command line to the disk.
func BenchmarkWrite64(b *testing.B) {
	dir := b.TempDir()
	for i := 0; b.Loop(); i++ {
		e := scriptEnv()
		e.args = []string{"app", "--output=" + dir + "/" + strconv.Itoa(i), "--instances=64", "--listen=3000", "--", "/bin/true"}
		e.stderr = new(strings.Builder)
		if status := run(context.Background(), e); status != 0 {
			b.Fatal(status, e.stderr)
		}
	}
}

// What the user may mend is 2, what the system has to is 1, both together 1; and there is one hint.
func TestReport(t *testing.T) {
	input, system := inputf("do this", "a"), fault.With(errors.New("b\nb"), "do that")
	for _, test := range []struct {
		err    error
		status int
		text   string
	}{
		{input, 2, "unitgen: a\nunitgen: hint: do this\n"},
		{errors.Join(input, inputf("", "c"), input), 2, "unitgen: a\nunitgen: c\nunitgen: hint: do this\n"},
		{errors.Join(system, input), 1, "unitgen: b; b\nunitgen: a\nunitgen: hint: do that\n"},
		{errors.New("plain"), 1, "unitgen: plain\n"},
	} {
		var b strings.Builder
		if status := report(&b, test.err); status != test.status || b.String() != test.text {
			t.Errorf("report(%v) = %d, %q", test.err, status, b.String())
		}
	}
}
