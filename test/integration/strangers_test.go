//go:build integration

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testLbshimAlone starts lbshim as a curious user would.
func testLbshimAlone(t *testing.T, s *apps.System) {
	tests := []struct {
		args   []string
		status int
		words  string
	}{
		{[]string{"serve", "app"}, 6, "systemctl start app.service"},
		{[]string{"join", "app", "1"}, 6, "Sockets="},
		{[]string{"serve", "no/app"}, 2, "no/app"},
		{[]string{"serve"}, 2, "lbshim --help"},
		{[]string{"dance"}, 2, `"dance"`},
		{nil, 2, "lbshim --help"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			out, err := s.Exec(t.Context(), append([]string{apps.Lbshim}, tt.args...)...)
			if err != nil || out.Status != tt.status || out.Stdout != "" {
				t.Errorf("lbshim %q = %+v, %v; want exit status %d", tt.args, out, err, tt.status)
			}
			if strings.Count(out.Stderr, "\n") != 1 || !strings.Contains(out.Stderr, tt.words) {
				t.Errorf("lbshim %q says %q, want one line with %q", tt.args, out.Stderr, tt.words)
			}
		})
	}
}

// testRedirectedOutput starts lbshim as a child of a service whose standard error is the journal,
// with its own elsewhere.
func testRedirectedOutput(t *testing.T, s *apps.System) {
	out, err := s.Exec(t.Context(), "env", "JOURNAL_STREAM=8:123456", apps.Lbshim, "dance")
	if want := "lbshim: unknown verb \"dance\""; err != nil || !strings.HasPrefix(out.Stderr, want) {
		t.Errorf("%+v, %v; want %q where its standard error is", out, err, want)
	}
}

// testControlStrangers tries the control socket as a user who has no business there: with a
// listener of the app in hand, and past the socket's mode.
func testControlStrangers(t *testing.T, s *apps.System) {
	a := startApp(t, s, "strange")
	before := a.pids(a.N)
	const unit = "/run/systemd/system/stranger.service"
	// NonBlocking= as the Go program has it: PID 1 sets it on the socket that both share.
	a.MustWriteFile(t, unit, "[Service]\nType=oneshot\nUser=nobody\nNonBlocking=yes\nSockets="+a.Socket(1)+"\nExecStart="+apps.Lbshim+" join strange 2\n", 0o644)
	a.MustSystemctl("daemon-reload")
	if err := a.Systemctl(t.Context(), "start", "stranger.service"); err == nil {
		t.Error("join by another user succeeds")
	}
	a.MustExec(t, "rm", unit)
	a.MustSystemctl("daemon-reload")

	const script = `import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b'{"method":"io.unitgen.Shim.Status"}\0')
print(s.recv(65536))`
	call := func(user string) (rig.Output, error) {
		return a.Exec(t.Context(), "runuser", "-u", user, "--", "python3", "-c", script, a.ControlPath())
	}
	a.MustExec(t, "chmod", "0666", a.ControlPath())
	if out, err := call("nobody"); err != nil || strings.Contains(out.Stdout, "addresses") {
		t.Errorf("status for another user = %+v, %v; want none", out, err)
	}
	if out, err := call("root"); err != nil || !strings.Contains(out.Stdout, "addresses") {
		t.Errorf("status for root = %+v, %v", out, err)
	}
	a.evenly(a.Addr(), before)
}

// testControlGarbage sends the shim what no client of ours would.
func testControlGarbage(t *testing.T, s *apps.System) {
	a := startApp(t, s, "garbage")
	shim, pids := a.PID(a.Shim()), a.pids(a.N)
	load := a.load(rig.LoadOptions{})
	tests := []struct{ name, bytes string }{
		{"nothing", ""},
		{"no end", `{"method":"io.unitgen.Shim.Status"`},
		{"not JSON", "GET / HTTP/1.1\r\n\r\n\x00"},
		{"NUL bytes", strings.Repeat("\x00", 10_000)},
		{"wrong type", `{"method":17}` + "\x00"},
		{"unknown method", `{"method":"io.unitgen.Shim.Explode"}` + "\x00"},
		{"wrong parameters", `{"method":"io.unitgen.Shim.Drain","parameters":{"instance":"all"}}` + "\x00"},
		{"no such instance", `{"method":"io.unitgen.Shim.Drain","parameters":{"instance":-1}}` + "\x00"},
		{"join without listener", `{"method":"io.unitgen.Shim.Join","parameters":{"instance":9}}` + "\x00"},
		{"deep", strings.Repeat("[", 100_000) + "\x00"},
		{"too long", string(bytes.Repeat([]byte("x"), 3<<20))},
		{"binary", "\xff\xfe\x80\x00\x01\x00"},
	}
	for _, tt := range tests {
		conn := a.control()
		_, err := io.WriteString(conn, tt.bytes)
		// The shim may hang up before it has read all.
		if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the shim neither answers nor hangs up: %v", tt.name, err)
		}
		conn.Close()
	}
	// Clients that say nothing do not keep others out.
	for range 200 {
		defer a.control().Close()
	}
	if got := len(a.Status().Instances); got != a.N {
		t.Errorf("status has %d instances, want %d", got, a.N)
	}
	a.AwaitOK(load, 100)
	a.Lossless(load.Stop())
	if a.PID(a.Shim()) != shim {
		t.Error("the shim was restarted")
	}
	a.evenly(a.Addr(), pids)
}

// testForgedSignals has a user of the host tell the balancer what only PID 1 can know: that
// instances have failed, and that one which was stopped is up. Whoever is on the system bus may
// send signals to anybody there.
func testForgedSignals(t *testing.T, s *apps.System) {
	a := startApp(t, s, "forged", "--instances=4")
	before := a.pids(a.N)
	forge := func(instance int, active, sub string) {
		t.Helper()
		a.MustExec(t, "runuser", "-u", "nobody", "--", "busctl", "--system", "emit", "--destination="+a.busName(a.Shim()),
			fmt.Sprintf("/org/freedesktop/systemd1/unit/forged_40%d_2eservice", instance),
			"org.freedesktop.DBus.Properties", "PropertiesChanged", "sa{sv}as", "org.freedesktop.systemd1.Unit",
			"2", "ActiveState", "s", active, "SubState", "s", sub, "0")
	}
	for i := range 4 {
		forge(i+1, "failed", "failed")
	}
	// The bus keeps the order: the balancer has what was forged when it has what PID 1 says of this
	// restart.
	a.MustSystemctl("restart", a.Instance(4))
	a.AwaitUp(a.N)
	before[4] = a.PID(a.Instance(4))
	a.evenly(a.Addr(), before)

	a.MustSystemctl("stop", a.Instance(2))
	a.AwaitStatus("3/4 instances up")
	forge(2, "active", "running")
	a.MustSystemctl("stop", a.Instance(4))
	a.AwaitStatus("2/4 instances up")
	delete(before, 2)
	delete(before, 4)
	a.evenly(a.Addr(), before)
}

// busName is the unique name of a service's main process on the system bus.
func (a *testApp) busName(unit string) string {
	a.T.Helper()
	pid := a.PID(unit)
	for line := range strings.Lines(a.MustExec(a.T, "busctl", "--system", "list", "--unique", "--no-legend", "--no-pager")) {
		if words := strings.Fields(line); len(words) > 1 && words[1] == pid {
			return words[0]
		}
	}
	a.T.Fatalf("process %s of %s is not on the bus", pid, unit)
	return ""
}
