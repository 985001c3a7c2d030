//go:build integration

// Package explain tests what people read when an app does not start: real programs that fail, each in its own way, and the
// exact words, options and exit status that unitgen answers with.
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

// onBoth are the failures that systemd 252 reports in another way, or that cover another part of package explain.
var onBoth = []string{"exits", "exits-at-once", "segfault", "command-vanished", "working-directory", "env-file", "no-ready", "other-port"}

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

// run starts the failure as a user would and returns what the user reads, with port 4000 for the app's and no process IDs.
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
