//go:build integration

// Package explain tests what people read when an app does not start: real programs that fail, each
// in its own way, and the exact words, options and exit status that unitgen answers with.
package explain

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

var update = flag.Bool("update", false, "write the golden file anew")

func TestMain(m *testing.M) { rig.Main(m, 1000) }

// atATime is how many failures run at a time: most of them wait.
const atATime = 6

// golden has the words of all failures, by their names.
const golden = "testdata/failures.txt"

// onBoth are the failures that systemd 252 reports in another way, or that cover another part of
// package explain.
var onBoth = []string{"partly", "exits", "exits-at-once", "segfault", "command-vanished", "working-directory", "env-file", "no-ready", "other-port"}

// TestFailures starts every failure once and compares what unitgen says.
func TestFailures(t *testing.T) {
	rig.Table(t, onBoth, func(t *testing.T, suite string, run rig.Runner) {
		s := apps.Boot(t, suite)
		s.MustExec(t, "sh", "-c", prepare)
		want := readGolden(t)
		got := new(sync.Map)
		if *update && suite == rig.Newest {
			t.Cleanup(func() { writeGolden(t, got) })
		}
		slots := make(chan struct{}, atATime)
		run("partly", (*testing.T).Parallel, func(t *testing.T) { testPartly(t, s) })
		run("user-units", (*testing.T).Parallel, func(t *testing.T) { testUserUnits(t, s) })
		for _, f := range failures {
			wait := func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				t.Cleanup(func() { <-slots })
			}
			run(f.name, wait, func(t *testing.T) {
				text := f.run(t, s)
				got.Store(f.name, text)
				if w := want[f.name]; !*update && text != w {
					t.Errorf("%s says:\n%s\nwant:\n%s", f.name, text, w)
				}
			})
		}
	})
}

// testPartly starts an app of which one instance fails, asks status and doctor why, and mends it:
// the wait for that instance's next try, ten seconds by then, is not waited for.
func testPartly(t *testing.T, s *apps.System) {
	port := s.NewPort()
	t.Cleanup(func() {
		if out, err := s.Exec(context.Background(), "unitgen", "remove", "partly"); err != nil || out.Status != 0 {
			t.Errorf("remove: %+v, %v", out, err)
		}
	})
	start := func(status int, want string, args ...string) {
		t.Helper()
		out, err := s.Exec(t.Context(), append([]string{"unitgen", "partly"}, args...)...)
		if err != nil || out.Status != status || !strings.HasSuffix(out.Stderr, want) {
			t.Fatalf("unitgen partly %q = %+v, %v; want status %d and\n%s", args, out, err, status, want)
		}
	}
	const reason = `the program ended with exit status 3; it said "no licence for instance 2"`
	bad := []string{"--", "/bin/sh", "-c", `if [ $INSTANCE = 2 ]; then echo no licence for instance 2; exit 3; fi; exec ` + apps.Server}
	start(1, fmt.Sprintf("unitgen: partly: 2/3 instances up at 127.0.0.1:%d (steer)\nunitgen: partly@2 did not get ready: %s\nunitgen: hint: unitgen logs partly@2\n", port, reason),
		append([]string{fmt.Sprintf("--listen=127.0.0.1:%d", port), "--instances=3", "--restart-delay=5s", "--now"}, bad...)...)
	for _, tt := range []struct {
		verb   string
		status int
		want   string
	}{
		{"status", 0, "\npartly@2: " + reason + "\nHint: unitgen logs partly@2\n"},
		{"doctor", 1, "partly@2: it is not up: " + reason + ": unitgen logs partly@2\n"},
	} {
		out, err := s.Exec(t.Context(), "unitgen", tt.verb, "partly")
		if err != nil || out.Status != tt.status || !strings.Contains(out.Stdout, tt.want) {
			t.Errorf("%s = %+v, %v; want status %d and\n%s", tt.verb, out, err, tt.status, tt.want)
		}
	}
	start(0, fmt.Sprintf("partly: 3/3 instances up at 127.0.0.1:%d (steer)\nRunning instances keep the old settings. Apply with: systemctl reload partly\n", port), "--now", "--", apps.Server)
}

// testUserUnits has apps of a user without rights fail, who reads what their own manager and their
// own journal tell.
func testUserUnits(t *testing.T, s *apps.System) {
	const uid = "1300"
	s.MustExec(t, "useradd", "--create-home", "--uid="+uid, "carol")
	s.MustExec(t, "loginctl", "enable-linger", "carol")
	s.MustWait(t, time.Minute, "user@"+uid+".service", func(p rig.Properties) bool { return p["ActiveState"] == "active" })
	as := func(argv ...string) rig.Output {
		t.Helper()
		out, err := s.Exec(t.Context(), append([]string{"setpriv", "--reuid=carol", "--regid=carol", "--init-groups", "--", "env", "-C", "/home/carol",
			"HOME=/home/carol", "XDG_RUNTIME_DIR=/run/user/" + uid}, argv...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	const file = "/home/carol/run"
	start := func(name string, args ...string) rig.Output {
		return as(append([]string{"unitgen", name, "--user-units"}, args...)...)
	}
	for _, tt := range []struct {
		name   string
		script string // in place of the one that the units were written for
		want   string
	}{
		{"exits", "#!/bin/sh\necho 'fatal: no such table: users' >&2\nexit 3\n",
			"unitgen: exits@1 did not get ready: the program ended with exit status 3; it said \"fatal: no such table: users\"\n" +
				"unitgen: hint: unitgen logs exits@1 --user-units\n"},
		{"no-interpreter", "#!/opt/ruby/bin/ruby\n",
			"unitgen: no-interpreter@1 did not get ready: /home/carol/run is a script for /opt/ruby/bin/ruby, which does not exist\n" +
				"unitgen: hint: unitgen no-interpreter --user-units -- INTERPRETER /home/carol/run ...\n"},
	} {
		s.MustWriteFile(t, file, "#!/bin/sh\n", 0o755)
		if out := start(tt.name, fmt.Sprintf("--listen=%d", s.NewPort()), "--instances=1", "--", file); out.Status != 0 {
			t.Fatalf("write units of %s: %+v", tt.name, out)
		}
		s.MustWriteFile(t, file, tt.script, 0o755)
		if out := start(tt.name, "--now"); out.Status != 1 || !strings.HasSuffix(out.Stderr, tt.want) {
			t.Errorf("start of %s = %+v; want status 1 and\n%s", tt.name, out, tt.want)
		}
		if out := as("unitgen", "remove", tt.name, "--user-units"); out.Status != 0 {
			t.Errorf("remove %s: %+v", tt.name, out)
		}
	}
}

// run starts the failure as a user would and returns what the user reads, with port 4000 for the
// app's and no process IDs.
func (f failure) run(t *testing.T, s *apps.System) string {
	port := s.NewPort()
	dir := "/srv/" + f.name
	expand := strings.NewReplacer("{port}", strconv.Itoa(port), "{dir}", dir, "{name}", f.name)
	s.MustExec(t, "mkdir", "-p", dir)
	for name, text := range f.files {
		s.MustWriteFile(t, dir+"/"+name, expand.Replace(text), 0o755)
	}
	if f.setup != "" {
		s.MustExec(t, "sh", "-ec", "cd "+dir+"; "+expand.Replace(f.setup))
	}
	listen, timeout := "--listen="+strconv.Itoa(port), f.timeout
	if timeout == "" {
		timeout = "20s"
	}
	args := []string{"unitgen", f.name, listen, "--instances=1", "--start-timeout=" + timeout, "--now"}
	for _, word := range f.args {
		args = append(args, expand.Replace(word))
	}
	t.Cleanup(func() {
		if f.after != "" {
			if out, err := s.Exec(context.Background(), "sh", "-ec", f.after); err != nil || out.Status != 0 {
				t.Errorf("clean up: %+v, %v", out, err)
			}
		}
		if out, err := s.Exec(context.Background(), "unitgen", "remove", f.name); err != nil || out.Status != 0 {
			t.Errorf("remove: %+v, %v", out, err)
		}
	})
	if f.before != "" { // between the units and their start
		s.MustExec(t, append(args[:5:5], args[6:]...)...)
		s.MustExec(t, "sh", "-ec", "cd "+dir+"; "+expand.Replace(f.before))
		args = []string{"unitgen", f.name, "--now"}
	}
	began := time.Now()
	out, err := s.Exec(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("after %s", time.Since(began).Round(time.Millisecond))
	var b strings.Builder
	fmt.Fprintf(&b, "exit status %d\n", out.Status)
	for line := range strings.Lines(out.Stderr) {
		if strings.HasPrefix(line, "unitgen: ") {
			b.WriteString(line)
		}
	}
	text := strings.ReplaceAll(b.String(), strconv.Itoa(port), "4000")
	text = regexp.MustCompile(`\(process \d+\)`).ReplaceAllString(text, "(process PID)")
	if t.Failed() || testing.Verbose() {
		log, _ := s.Journal(t.Context(), f.name+"*")
		t.Logf("%s\n%s", text, log)
	}
	return text
}

// readGolden reads blocks of "== NAME" and the words below.
func readGolden(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(golden)
	if err != nil && !*update {
		t.Fatal(err)
	}
	blocks := make(map[string]string)
	name := ""
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "== "); ok {
			name = strings.TrimSpace(n)
		} else if name != "" && strings.TrimSpace(line) != "" {
			blocks[name] += line
		}
	}
	return blocks
}

// writeGolden writes what failures were tried, and of the others what was known.
func writeGolden(t *testing.T, got *sync.Map) {
	var b strings.Builder
	b.WriteString("What unitgen says of each failure. \"go test -tags integration ./test/explain -run TestFailures/trixie -update\" writes this file.\n")
	old := readGolden(t)
	for _, f := range failures {
		text := old[f.name]
		if now, ok := got.Load(f.name); ok {
			text = now.(string)
		}
		fmt.Fprintf(&b, "\n== %s\n%s", f.name, text)
	}
	if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
		t.Error(err)
	}
}
