//go:build integration

package generator

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// run runs a command whatever its exit status.
func (s *system) run(t *testing.T, argv ...string) rig.Output {
	t.Helper()
	out, err := s.Exec(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// unitgen runs unitgen, which must succeed.
func (s *system) unitgen(t *testing.T, args ...string) rig.Output {
	t.Helper()
	out := s.run(t, append([]string{"unitgen"}, args...)...)
	if out.Status != 0 {
		t.Fatalf("unitgen %.300q = %d\n%s%s", args, out.Status, out.Stdout, out.Stderr)
	}
	return out
}

// later runs a command at the test's end, whatever its exit status.
func (s *system) later(t *testing.T, argv ...string) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit) // the test's own has ended
		defer cancel()
		if _, err := s.Exec(ctx, argv...); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
}

// removeLater removes the app at the test's end, with what a failed test may have left of it.
// Before, a failed test logs its journal.
func (s *system) removeLater(t *testing.T, name string) {
	t.Helper()
	// The second half is for what a test has broken, and for drop-ins.
	const script = `unitgen remove "$1"; cd /etc/systemd/system
		find . -name "$1[.@-]*" -o -name ".unitgen-*" | grep -q . || exit 0
		rm -rf "$1".* "$1"[@-]* .unitgen-* *.wants/"$1".* *.wants/"$1"[@-]*
		systemctl daemon-reload; systemctl stop "$1.*" "$1[@-]*"; systemctl reset-failed`
	s.later(t, "sh", "-c", script, "sh", name)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		text, err := s.Journal(ctx, name+"*")
		t.Logf("journal of %s (%v):\n%s", name, err, text[max(0, len(text)-8000):])
	})
}

// refused runs unitgen with input that it must refuse: with this status, one line on stderr for
// each pattern of lines, at most one hint behind them, and a disk that is as it was.
func (s *system) refused(t *testing.T, status int, lines []string, args ...string) {
	t.Helper()
	s.refusedBy(t, nil, status, lines, args...)
}

// refusedBy is refused with a command before unitgen that runs it in another way.
func (s *system) refusedBy(t *testing.T, prefix []string, status int, lines []string, args ...string) {
	t.Helper()
	before := s.tree(t, units)
	out := s.run(t, append(append(prefix, "unitgen"), args...)...)
	if after := s.tree(t, units); after != before {
		t.Errorf("unitgen %.300q has changed the disk:\n%s\nbefore\n%s", args, after, before)
	}
	checkRefusal(t, out, status, lines, args)
}

// checkRefusal checks the status and the lines of a run that was refused.
func checkRefusal(t *testing.T, out rig.Output, status int, patterns, args []string) {
	t.Helper()
	if out.Status != status || out.Stdout != "" {
		t.Errorf("unitgen %.300q = %d, %q on stdout; want %d and nothing\n%s", args, out.Status, out.Stdout, status, out.Stderr)
	}
	lines := strings.Split(strings.TrimSuffix(out.Stderr, "\n"), "\n")
	if n := len(lines); strings.HasPrefix(lines[n-1], "unitgen: hint: ") {
		lines = lines[:n-1]
	}
	if len(lines) != len(patterns) {
		t.Errorf("unitgen %.300q says %.1000q, want %d lines and a hint at most", args, out.Stderr, len(patterns))
		return
	}
	for i, pattern := range patterns {
		if !regexp.MustCompile("^unitgen: "+pattern).MatchString(lines[i]) || strings.HasPrefix(lines[i], "unitgen: hint:") {
			t.Errorf("unitgen %.300q says %.1000q, want a match of %q", args, lines[i], pattern)
		}
	}
}

// tree describes all that directories hold: names, types, inodes, modes, times, links and sizes,
// directories' times included. The same text means that nothing was written, not even for a moment.
func (s *system) tree(t *testing.T, dirs ...string) string {
	t.Helper()
	out := s.MustExec(t, append(append([]string{"find"}, dirs...), "-printf", `%p %y %i %m %T@ %s %l\n`)...)
	return sortLines(out)
}

// reloads counts how often PID 1 has read its unit files anew.
func (s *system) reloads(t *testing.T) int {
	t.Helper()
	count := func() int {
		s.MustExec(t, "journalctl", "--sync")
		text := s.MustExec(t, "journalctl", "--no-pager", "--quiet", "--output=cat", "_PID=1")
		return len(regexp.MustCompile(`(?m)^Reloading(\.|\.\.\.)$`).FindAllString(text, -1))
	}
	before := count()
	s.MustExec(t, "systemctl", "daemon-reload")
	after := count()
	if after != before+1 { // another wording, for example
		t.Fatalf("one daemon-reload makes %d messages of PID 1", after-before)
	}
	return before
}

// invocations are the state, main process and invocation of each unit: the same as long as nobody
// restarts it.
func (s *system) invocations(t *testing.T, names ...string) string {
	t.Helper()
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s: %s", name, strings.ReplaceAll(s.MustExec(t, "systemctl", "show", "--property=ActiveState,MainPID,InvocationID", name), "\n", " "))
		b.WriteByte('\n')
	}
	return b.String()
}

// listeners are the listening sockets on a port.
func (s *system) listeners(t *testing.T, port int) string {
	t.Helper()
	return s.MustExec(t, "ss", "-tlnH", fmt.Sprintf("sport = :%d", port))
}

// get returns what the app on a port answers.
func (s *system) get(t *testing.T, port int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := s.HTTPClientPerRequest().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// awaitUp waits until the shim says that n instances take connections, and that no other one
// exists.
func (s *system) awaitUp(t *testing.T, name string, n int) {
	t.Helper()
	s.MustWait(t, limit, name+".service", func(p rig.Properties) bool {
		return p["ActiveState"] == "active" && strings.HasPrefix(p["StatusText"], fmt.Sprintf("%d/%d instances up", n, n))
	})
}

// load puts load on a port.
func (s *system) load(port int) *rig.Load {
	return s.StartLoad(rig.LoadOptions{Addr: fmt.Sprintf("127.0.0.1:%d", port), Timeout: limit})
}

func awaitOK(t *testing.T, l *rig.Load, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := l.WaitOK(ctx, n); err != nil {
		t.Fatal(err)
	}
}

func sortLines(text string) string {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}
