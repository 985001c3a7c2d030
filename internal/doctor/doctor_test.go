package doctor

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/steer"
)

// about are the findings of apps, and of the machine that begin with what; for a machine without
// systemd.
func about(t *testing.T, m Machine, what string, apps ...app.Name) []string {
	t.Helper()
	found, err := m.Examine(t.Context(), apps)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, f := range found {
		if f.About != machine || what != "" && strings.HasPrefix(f.What, what) {
			texts = append(texts, f.String())
		}
	}
	return texts
}

// aMachine has app web, of one instance.
func aMachine(t *testing.T) Machine {
	t.Helper()
	root := t.TempDir()
	site := plan.Site{Dir: root + "/etc/systemd/system", Root: root, Lbshim: "/usr/lib/unitgen/lbshim"}
	d, err := site.Read("web")
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.For(app.App{Name: "web", Command: []string{"/bin/true"}, Listen: []app.Listen{{Port: 3000}}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(); err != nil {
		t.Fatal(err)
	}
	return Machine{Kernel: "6.12.9", Live: live.Options{Site: site, Getenv: func(string) string { return "" }, Now: time.Now, Tell: func(live.Event) {}}}
}

// Only what cannot be spread evenly is wrong with a machine.
func TestSteering(t *testing.T) {
	const wrong = "connections cannot be spread evenly"
	for _, tt := range []struct {
		kernel steer.SelfTestResult
		want   int
	}{
		{steer.SelfTestResult{Distribution: true, Migration: true}, 0},
		{steer.SelfTestResult{Distribution: true, Reason: "old"}, 0},
		{steer.SelfTestResult{Reason: "load program: EPERM"}, 1},
	} {
		m := aMachine(t)
		m.Steering = &tt.kernel
		if found := about(t, m, wrong); len(found) != tt.want {
			t.Errorf("%+v: found %q, want %d findings", tt.kernel, found, tt.want)
		}
	}
}

func TestOlderThan(t *testing.T) {
	for release, want := range map[string]bool{"5.13.19": true, "5.14.0-1-amd64": false, "6.1": false, "4.19.0": true, "": false, "x": false} {
		if got := olderThan(release, 5, 14); got != want {
			t.Errorf("olderThan(%q, 5, 14) = %v", release, got)
		}
	}
}

// A drop-in is read as PID 1 reads it: keys count in their section only, and comments, continued
// lines and long ones are what they are.
func TestDropIn(t *testing.T) {
	for name, test := range map[string]struct {
		unit, text string
		want       []string // the keys that defeat something
	}{
		"of its section":        {"web@.service", "[Service]\nExecStop=/bin/x\n", []string{"ExecStop"}},
		"taken back":            {"web@.service", "[Service]\nExecStop=\nExecStop=/bin/x\n", []string{"ExecStop"}},
		"of another section":    {"web@.service", "[X-Mine]\nExecStop=/bin/x\n[Unit]\nExecStop=/bin/x\n", nil},
		"of the unit":           {"web@.service", "[Unit]\nPartOf=x.service\n", []string{"PartOf"}},
		"before any section":    {"web@.service", "ExecStop=/bin/x\n", nil},
		"in a comment":          {"web@.service", "[Service]\n# ExecStop=\n ; ExecStop=\n", nil},
		"after a comment":       {"web@.service", "[Service]\n# ExecStart=/bin/a \\\nExecStop=\n", []string{"ExecStop"}},
		"in a continued line":   {"web@.service", "[Service]\nEnvironment=A=1 \\\nExecStop=/bin/x\n", nil},
		"after a long line":     {"web@.service", "[Service]\nEnvironment=A=" + strings.Repeat("x", 9000) + "\nExecStop=\n", []string{"ExecStop"}},
		"of a socket":           {"web.socket", "[Socket]\nAccept=yes\n", []string{"Accept"}},
		"a socket's of another": {"web.socket", "[Service]\nAccept=yes\n", nil},
		"the admin's to set":    {"web@.service", "[Service]\nMemoryHigh=1G\n", nil},
		"readiness":             {"web@.service", "[Service]\nType=simple\n", []string{"Type"}},
		"standard input":        {"web@.service", "[Service]\nStandardInput=socket\n", []string{"StandardInput"}},
		"a deferred accept":     {"web@.socket", "[Socket]\nDeferAcceptSec=1\n", []string{"DeferAcceptSec"}},
		"a stop too short":      {"web@.service", "[Service]\nTimeoutStopSec=5\n", []string{"--drain-timeout= gives 30s"}},
		"a start too short":     {"web@.service", "[Service]\nTimeoutStartSec=10s\n", []string{"--start-timeout= gives 1min 30s"}},
		"long enough":           {"web@.service", "[Service]\nTimeoutStopSec=2min\nTimeoutStartSec=infinity\n", nil},
		"no drop-in":            {"web@.service", "[Service]\nhello\n", []string{"unexpected newline"}},
	} {
		m := aMachine(t)
		file := filepath.Join(m.Live.Site.Dir, test.unit+".d", "x.conf")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		found := about(t, m, "", "web")
		for i, key := range test.want {
			if i >= len(found) || !strings.Contains(found[i], key) {
				t.Errorf("%s: found %q, want %q", name, found, test.want)
			}
		}
		if len(found) != len(test.want) {
			t.Errorf("%s: found %q, want %q", name, found, test.want)
		}
	}
}

// What else listens there is found, with SO_REUSEPORT or without; a free port is free.
func TestCheckPort(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "[::1]"} {
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		}}
		l, err := config.Listen(t.Context(), "tcp", address+":0")
		if err != nil {
			t.Skip(err)
		}
		number := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		for _, text := range []string{number, address + ":" + number} {
			listen, err := app.ParseListen(text)
			if err != nil {
				t.Fatal(err)
			}
			if err := port(listen); !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("%s while %s:%s is in use: %v", text, address, number, err)
			}
		}
		l.Close()
		if listen, _ := app.ParseListen(number); port(listen) != nil {
			t.Errorf("%s is free: %v", number, port(listen))
		}
	}
}
