//go:build integration

package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// testApp is an app under test.
type testApp struct {
	*system
	t    *testing.T
	name string
	port int

	runtime string // $XDG_RUNTIME_DIR of the user whose app it is; empty: the system's
}

// newApp writes the units of an app of four instances of the Go example on a port of its own. The words are further
// options of unitgen, in front of them "--" and a command if it is to be another one. The app is stopped and removed at
// the test's end; a failed test logs its journal.
func newApp(t *testing.T, s *system, name string, words ...string) *testApp {
	t.Helper()
	a := &testApp{system: s, t: t, name: name, port: s.newPort()}
	args := []string{"--instances=4"}
	if !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "--listen=") }) {
		args = append(args, fmt.Sprintf("--listen=%d", a.port))
	}
	if args = append(args, words...); !slices.Contains(words, "--") {
		args = append(args, "--", server)
	}
	t.Cleanup(a.remove)
	s.MustExec(t, append([]string{"unitgen", name}, args...)...)
	return a
}

// startApp is newApp with --now, and waits until all instances are up.
func startApp(t *testing.T, s *system, name string, words ...string) *testApp {
	t.Helper()
	a := newApp(t, s, name, append([]string{"--now"}, words...)...)
	a.awaitUp(4)
	return a
}

// remove removes the app as its user would. Drop-ins are not unitgen's to remove, and what a test left in a bad state must
// not meet the next one.
func (a *testApp) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), limit) // the test's own has ended
	defer cancel()
	if a.t.Failed() {
		a.logJournal(ctx)
	}
	if out, err := a.Exec(ctx, "unitgen", "remove", a.name); err != nil || out.Status != 0 {
		a.t.Errorf("unitgen remove %s = %+v, %v", a.name, out, err)
	}
	const script = `rm -rf /etc/systemd/system/"$1".*.d /etc/systemd/system/"$1"[@-]*.d
		systemctl daemon-reload; systemctl stop "$1.*" "$1[@-]*"; systemctl reset-failed`
	if _, err := a.Exec(ctx, "sh", "-c", script, "sh", a.name); err != nil {
		a.t.Errorf("clean up after %s: %v", a.name, err)
	}
}

// logJournal logs the end of the app's journal, with structured fields left out.
func (a *testApp) logJournal(ctx context.Context) {
	const lines = 120
	text, err := a.Journal(ctx, a.name+"*")
	all := strings.SplitAfter(text, "\n")
	a.t.Logf("journal of %s (%v):\n%s", a.name, err, strings.Join(all[max(0, len(all)-lines):], ""))
}

func (a *testApp) shim() string          { return a.name + ".service" }
func (a *testApp) instance(i int) string { return a.name + "@" + strconv.Itoa(i) + ".service" }
func (a *testApp) socket(i int) string   { return a.name + "@" + strconv.Itoa(i) + ".socket" }
func (a *testApp) addr() string          { return fmt.Sprintf("127.0.0.1:%d", a.port) }
func (a *testApp) systemctl(args ...string) {
	a.t.Helper()
	a.MustExec(a.t, append([]string{"systemctl"}, args...)...)
}

// awaitUp waits until the shim says that n instances take connections, and that no other one exists.
func (a *testApp) awaitUp(n int) {
	a.t.Helper()
	a.awaitStatus(fmt.Sprintf("%d/%d instances up", n, n))
}

// awaitStatus waits until the shim's status line contains words.
func (a *testApp) awaitStatus(words string) {
	a.t.Helper()
	a.MustWait(a.t, limit, a.shim(), func(p rig.Properties) bool {
		return p["ActiveState"] == "active" && strings.Contains(p["StatusText"], words)
	})
}

// awaitSub waits until unit is in a SubState.
func (a *testApp) awaitSub(unit, state string) {
	a.t.Helper()
	a.MustWait(a.t, limit, unit, func(p rig.Properties) bool { return p["SubState"] == state })
}

// awaitNew waits until unit is active in another process than pid.
func (a *testApp) awaitNew(unit, pid string) {
	a.t.Helper()
	a.MustWait(a.t, limit, unit, func(p rig.Properties) bool { return p["ActiveState"] == "active" && p["MainPID"] != pid })
}

// pid is the main process of unit, "0" if it has none.
func (a *testApp) pid(unit string) string {
	a.t.Helper()
	return a.MustShow(a.t, unit, "MainPID")
}

// pids are the main processes of instances 1 to n.
func (a *testApp) pids(n int) map[int]string {
	a.t.Helper()
	pids := make(map[int]string)
	for i := 1; i <= n; i++ {
		pids[i] = a.pid(a.instance(i))
	}
	return pids
}

// signal sends a signal to the main process of unit.
func (a *testApp) signal(unit, name string) {
	a.t.Helper()
	a.MustExec(a.t, "kill", "-s", name, a.pid(unit))
}

// inodes are those of the listening sockets on the app's port, sorted: the same before and after if none was made anew.
func (a *testApp) inodes() string {
	a.t.Helper()
	var inodes []string
	for _, word := range strings.Fields(a.MustExec(a.t, "ss", "-tlnHe", fmt.Sprintf("sport = :%d", a.port))) {
		if strings.HasPrefix(word, "ino:") {
			inodes = append(inodes, word)
		}
	}
	slices.Sort(inodes)
	return strings.Join(inodes, " ")
}

// dropIn adds settings to a unit until the test's end or the function that it returns is called. It reloads PID 1.
func (a *testApp) dropIn(unit, text string) (undo func()) {
	a.t.Helper()
	file := "/etc/systemd/system/" + unit + ".d/test.conf"
	a.MustWriteFile(a.t, file, text, 0o644)
	a.systemctl("daemon-reload")
	return func() {
		a.t.Helper()
		a.MustExec(a.t, "rm", file)
		a.systemctl("daemon-reload")
	}
}

// load puts load on the app; Addr may be empty. It ends with the test at the latest. Unless it is a number of requests it
// has a rate which leaves PID 1 time to do what the test is about.
func (a *testApp) load(opts rig.LoadOptions) *rig.Load {
	if opts.Addr == "" {
		opts.Addr = a.addr()
	}
	if opts.Timeout == 0 {
		opts.Timeout = limit
	}
	if opts.Requests == 0 && opts.Rate == 0 {
		opts.Rate = 400
	}
	l := a.StartLoad(opts)
	a.t.Cleanup(func() { l.Stop() })
	return l
}

// awaitOK waits for n more answers.
func (a *testApp) awaitOK(l *rig.Load, n int) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), limit)
	defer cancel()
	if err := l.WaitOK(ctx, n); err != nil {
		a.t.Fatal(err)
	}
}

// lossless fails the test unless every request was answered.
func (a *testApp) lossless(r rig.Result) {
	a.t.Helper()
	if r.Failed() > 0 || r.OK == 0 {
		a.t.Errorf("load: %s", r)
	}
}

// evenly makes 400 connections to addr and checks that each process of want had its exact share.
func (a *testApp) evenly(addr string, want map[int]string) {
	a.t.Helper()
	a.evenlyOver(400, addr, want)
}

// evenlyOver is evenly with another number of connections.
func (a *testApp) evenlyOver(connections int, addr string, want map[int]string) {
	a.t.Helper()
	r := a.load(rig.LoadOptions{Addr: addr, Requests: connections}).Wait()
	a.lossless(r)
	expected := make(map[int]int)
	for _, pid := range want {
		n, err := strconv.Atoi(pid)
		if err != nil || n == 0 {
			a.t.Fatalf("processes of the instances = %v, want one each", want)
		}
		expected[n] = connections / len(want)
	}
	if !maps.Equal(r.PIDs, expected) {
		a.t.Errorf("connections by process = %v, want %v", r.PIDs, expected)
	}
}

// held is an open connection that has had one answer.
type held struct {
	net.Conn
	r        *bufio.Reader
	instance string
}

// hold opens n connections one after the other, each with one request answered.
func (a *testApp) hold(n int) []*held {
	a.t.Helper()
	var conns []*held
	for range n {
		conn, err := a.DialContext(a.t.Context(), "tcp", a.addr())
		if err != nil {
			a.t.Fatal(err)
		}
		a.t.Cleanup(func() { conn.Close() })
		h := &held{Conn: conn, r: bufio.NewReader(conn)}
		if h.instance, err = h.get("/"); err != nil {
			a.t.Fatal(err)
		}
		conns = append(conns, h)
	}
	return conns
}

// get sends one request and returns the instance that answered.
func (h *held) get(path string) (instance string, err error) {
	if err := h.send(path); err != nil {
		return "", err
	}
	return h.receive()
}

// send returns when the request is with the server's kernel.
func (h *held) send(path string) error {
	if err := h.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(h, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path)
	return err
}

func (h *held) receive() (instance string, err error) {
	resp, err := http.ReadResponse(h.r, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	_, rest, _ := strings.Cut(string(body), "instance=")
	instance, _, _ = strings.Cut(rest, " ")
	return instance, nil
}

// byInstance counts connections.
func byInstance(conns []*held) map[string]int {
	counts := make(map[string]int)
	for _, h := range conns {
		counts[h.instance]++
	}
	return counts
}
