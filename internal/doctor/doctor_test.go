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
	"github.com/unitgen/unitgen/internal/needs"
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

// aMachine has apps of one instance each; app web if none is named.
func aMachine(t *testing.T, apps ...app.Name) Machine {
	t.Helper()
	root := t.TempDir()
	site := plan.Site{Dir: root + "/etc/systemd/system", Root: root, Lbshim: "/usr/lib/unitgen/lbshim"}
	if len(apps) == 0 {
		apps = []app.Name{"web"}
	}
	for i, name := range apps {
		d, err := site.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.For(app.App{Name: name, Command: []string{"/bin/true"}, Listen: []app.Listen{{Port: uint16(3000 + i)}}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Write(); err != nil {
			t.Fatal(err)
		}
	}
	return Machine{Kernel: "6.12.9", Live: live.Options{Site: site, Getenv: func(string) string { return "" }, Now: time.Now, Tell: func(live.Event) {}}}
}

// Where the balancer cannot use eBPF, an app that wants it does not start.
func TestSteering(t *testing.T) {
	for _, tt := range []struct {
		kernel steer.SelfTestResult
		want   string
	}{
		{steer.SelfTestResult{Distribution: true, Migration: true}, ""},
		{steer.SelfTestResult{Distribution: true, Reason: "old"}, ""},
		{steer.SelfTestResult{Reason: "load program: EPERM"}, "web: its balancer cannot use eBPF here: load program: EPERM: unitgen web --classic-bpf"},
	} {
		m := aMachine(t)
		m.Steering = &tt.kernel
		if got := strings.Join(about(t, m, "", "web"), "; "); got != tt.want {
			t.Errorf("%+v: found %q, want %q", tt.kernel, got, tt.want)
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

// PID 1 reads more than the drop-ins of a unit: those of its template, of the beginnings of its
// name and of its type. A file hides others of its name. Two apps share a finding.
func TestDropInsOfMany(t *testing.T) {
	const stop, both = "[Service]\nExecStop=/bin/x\n", "an instance is stopped without a drain"
	for name, test := range map[string]struct {
		files map[string]string // by directory and name
		want  []string
	}{
		"of all services":           {map[string]string{"service.d/x.conf": stop}, []string{"shop-api, web: ", both}},
		"of all sockets":            {map[string]string{"socket.d/x.conf": "[Socket]\nDeferAcceptSec=1\n"}, []string{"shop-api, web: ", "sets DeferAcceptSec="}},
		"of another type":           {map[string]string{"timer.d/x.conf": stop}, nil},
		"of a beginning":            {map[string]string{"shop-@.service.d/x.conf": stop}, []string{"shop-api: ", both}},
		"of a beginning, balancer":  {map[string]string{"shop-.service.d/x.conf": "[Service]\nType=simple\n"}, []string{"shop-api: ", "a start does not wait for an instance"}},
		"of a beginning, join":      {map[string]string{"web-@.service.d/x.conf": "[Service]\nRemainAfterExit=no\n"}, []string{"web: ", "RemainAfterExit="}},
		"of another beginning":      {map[string]string{"sho-.service.d/x.conf": stop, "shop-api-.service.d/x.conf": "[Service]\nType=simple\n"}, nil},
		"hidden by the app's":       {map[string]string{"service.d/x.conf": "[Service]\nNonBlocking=yes\n", "web@.service.d/x.conf": "", "shop-api@.service.d/x.conf": ""}, nil},
		"hidden for one of them":    {map[string]string{"service.d/x.conf": "[Service]\nNonBlocking=yes\n", "web@.service.d/x.conf": ""}, []string{"shop-api: ", "NonBlocking"}},
		"of one instance hides not": {map[string]string{"service.d/x.conf": "[Service]\nNonBlocking=yes\n", "web@1.service.d/x.conf": ""}, []string{"shop-api, web: ", "NonBlocking"}},
		"a short stop for all":      {map[string]string{"service.d/x.conf": "[Service]\nTimeoutSec=5\n"}, []string{"shop-api, web: ", "--drain-timeout= gives 30s"}},
		"a start limit":             {map[string]string{"service.d/x.conf": "[Unit]\nStartLimitIntervalSec=10\n"}, []string{"shop-api, web: ", "nothing brings the balancer back after a crash; nothing brings an instance back"}},
		"no start limit":            {map[string]string{"service.d/x.conf": "[Unit]\nStartLimitIntervalSec=0\n"}, nil},
	} {
		m := aMachine(t, "shop-api", "web")
		for name, text := range test.files {
			file := filepath.Join(m.Live.Site.Dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		found := about(t, m, "", "shop-api", "web")
		if len(found) != min(len(test.want), 1) || len(found) == 1 && (!strings.HasPrefix(found[0], test.want[0]) || !strings.Contains(found[0], test.want[1])) {
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
			needs.Missing(t, "%v", err) // no IPv6
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

// Both programs may be links, or one alone, to a folder that has both.
func TestLbshimMayBeALink(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"/usr/lib/unitgen", "/store"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const lbshim = "/usr/lib/unitgen/lbshim"
	if err := os.WriteFile(root+"/store/lbshim", nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../store/lbshim", root+lbshim); err != nil {
		t.Fatal(err)
	}
	if err := CheckLbshim(root, lbshim); err == nil || !strings.Contains(err.Error(), "find /store/lbshim-balancer: it is not installed") {
		t.Errorf("without the other: %v", err)
	}
	if err := os.WriteFile(root+"/store/lbshim-balancer", nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := CheckLbshim(root, lbshim); err != nil {
		t.Errorf("with both: %v", err)
	}
}
