//go:build integration

package rig

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func bootEach(t *testing.T, f func(t *testing.T, c *Container)) {
	EachSuite(t, func(t *testing.T, suite string) { f(t, Boot(t, suite, Options{})) })
}

func TestBoot(t *testing.T) {
	versions := map[string]string{"bookworm": "systemd 252", "trixie": "systemd 257"}
	bootEach(t, func(t *testing.T, c *Container) {
		if got := c.MustExec(t, "systemctl", "--version"); !strings.HasPrefix(got, versions[c.Suite]) {
			t.Errorf("systemctl --version = %q, want %s", got, versions[c.Suite])
		}
		if failed := c.MustExec(t, "systemctl", "--failed", "--no-legend"); failed != "" {
			t.Errorf("units failed at boot: %s", failed)
		}
		if fs := c.MustExec(t, "stat", "-f", "-c", "%T", "/sys/fs/cgroup"); fs != "cgroup2fs\n" {
			t.Errorf("/sys/fs/cgroup is %q, want cgroup2fs", fs)
		}
		if got := c.MustExec(t, "cat", "/proc/self/cgroup"); !strings.Contains(got, "0::/init.scope\n") {
			t.Errorf("cgroup of a command = %q, want that of init", got)
		}
		if got := c.MustExec(t, "ls", "-A", "/sys/class/net"); got != "lo\n" {
			t.Errorf("network interfaces = %q, want lo alone", got)
		}
	})
}

func TestExec(t *testing.T) {
	c := Boot(t, Suites[0], Options{})
	t.Setenv("RIG_LEAK", "1")
	out, err := c.Exec(t.Context(), "sh", "-c", "echo out; echo err >&2; env | grep RIG_LEAK; exit 7")
	if want := (Output{"out\n", "err\n", 7}); err != nil || out != want {
		t.Errorf("Exec = %+v, %v; want %+v", out, err, want)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Exec(ctx, "sh", "-c", "sleep 3333 & wait"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Exec with a context that ends = %v, want its error", err)
	}
	if out, err := c.Exec(t.Context(), "pgrep", "-f", "sleep 3333"); err != nil || out.Status != 1 {
		t.Errorf("processes of the killed command: %+v, %v; want none", out, err)
	}
}

func TestFiles(t *testing.T) {
	c := Boot(t, Suites[0], Options{})
	const name = "/var/run/rig/new folder/file" // /var/run is an absolute link to /run
	c.MustWriteFile(t, name, "one", 0o600)
	c.MustWriteFile(t, name, "two", 0o755)
	if got := c.MustExec(t, "stat", "-c", "%a %u %s", "/run/rig/new folder/file"); got != "755 0 3\n" {
		t.Errorf("mode, owner, size = %q, want 755 0 3", got)
	}
	if got, err := c.ReadFile(name); err != nil || string(got) != "two" {
		t.Errorf("ReadFile = %q, %v; want two", got, err)
	}
	c.MustExec(t, "ln", "-s", "/etc/hostname", "/run/rig/link")
	if got, err := c.ReadFile("/run/rig/link"); err != nil || string(got) != c.Name+"\n" {
		t.Errorf("ReadFile through an absolute link = %q, %v; want the container's host name", got, err)
	}
	if _, err := os.Stat("/run/rig/new folder"); err == nil {
		t.Error("the file is on the host")
	}
	c.MustExec(t, "cp", "/bin/sleep", "/run/rig/sleep")
	c.MustExec(t, "systemd-run", "--quiet", "/run/rig/sleep", "600")
	c.MustCopyIn(t, "/bin/true", "/run/rig/sleep", 0o755) // a running program
	c.MustExec(t, "/run/rig/sleep")
}

func TestRebootAndDial(t *testing.T) {
	bootEach(t, func(t *testing.T, c *Container) {
		startNode(t, c)
		kept := c.HTTPClient()
		getPID := func(client *http.Client) string {
			resp, err := client.Get("http://127.0.0.1:3000/")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return field(body, "pid=")
		}
		getPID(kept)
		bootID := c.MustExec(t, "cat", "/proc/sys/kernel/random/boot_id")
		began := time.Now()
		if err := c.Reboot(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("reboot took %s", time.Since(began))
		if now := c.MustExec(t, "cat", "/proc/sys/kernel/random/boot_id"); now == bootID {
			t.Error("the same boot ID as before the reboot")
		}
		want := c.MustShow(t, "node.service", "MainPID")
		for _, client := range []*http.Client{kept, c.HTTPClientPerRequest()} {
			if pid := getPID(client); pid != want {
				t.Errorf("process %q has answered after the reboot, want %q, the enabled unit's", pid, want)
			}
		}
		if boots := c.MustExec(t, "journalctl", "--list-boots", "--no-pager", "--quiet"); strings.Count(boots, "\n") != 2 {
			t.Errorf("journal has the boots %q, want two", boots)
		}
	})
}

func TestWaitFor(t *testing.T) {
	bootEach(t, func(t *testing.T, c *Container) {
		c.MustExec(t, "systemd-run", "--quiet", "--unit=brief", "-p", "RemainAfterExit=yes", "sh", "-c", "sleep 0.3; exit 3")
		p := c.MustWait(t, 30*time.Second, "brief.service", func(p Properties) bool { return p["ActiveState"] == "failed" })
		if p["ExecMainStatus"] != "3" {
			t.Errorf("failed with status %q, want 3", p["ExecMainStatus"])
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		err := c.WaitActive(ctx, "brief.service", "active")
		if err == nil || !strings.Contains(err.Error(), "ActiveState=failed") {
			t.Errorf("wait that cannot end = %v, want an error with the last state", err)
		}
	})
}

// TestPrivileges checks what the container must be allowed to do for the product to work in it.
func TestPrivileges(t *testing.T) {
	bootEach(t, func(t *testing.T, c *Container) {
		startNode(t, c)
		c.MustExec(t, "systemd-run", "--quiet", "--wait", "--pipe", "curl", "--silent", "http://127.0.0.1:3000/")
		out, err := c.Exec(t.Context(), "systemd-run", "--quiet", "--wait", "--pipe", "-p", "IPAddressDeny=any",
			"curl", "--silent", "--max-time", "1", "http://127.0.0.1:3000/")
		if err != nil || out.Status != 28 { // curl's "operation timed out": packets are dropped
			t.Errorf("GET under IPAddressDeny=any = %+v, %v; want a failure: BPF programs do not load", out, err)
		}
		caps := c.MustExec(t, "systemd-run", "--quiet", "--wait", "--pipe", "-p", "User=nobody", "-p", "AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_NET_ADMIN",
			"grep", "CapAmb", "/proc/self/status")
		if want := "CapAmb:\t000000c000001000\n"; caps != want {
			t.Errorf("ambient capabilities of a unit = %q, want %q", caps, want)
		}
	})
}

// hostTraces returns what of name can be seen on the host.
func hostTraces(t *testing.T, name string) []string {
	t.Helper()
	var traces []string
	roots, err := cgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{filepath.Join(runDir, name)}
	for _, root := range roots {
		paths = append(paths, filepath.Join(root, cgroupPrefix+name))
	}
	for _, base := range []string{"propagate", "unix-export"} {
		paths = append(paths, filepath.Join("/run/systemd/nspawn", base, name))
	}
	for _, p := range paths {
		if _, err := os.Lstat(p); err == nil {
			traces = append(traces, p)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(name)) {
		traces = append(traces, "a mount")
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if data, err := os.ReadFile(p); err == nil && bytes.Contains(data, []byte(name)) {
			traces = append(traces, p+": "+string(bytes.ReplaceAll(data, []byte{0}, []byte(" "))))
		}
	}
	return traces
}

func TestCloseLeavesNothing(t *testing.T) {
	EachSuite(t, func(t *testing.T, suite string) {
		c := Boot(t, suite, Options{})
		c.MustExec(t, "systemd-run", "--quiet", "-p", "SendSIGKILL=no", "-p", "KillMode=none", "sh", "-c", "trap '' TERM HUP; sleep 600; sleep 600")
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if traces := hostTraces(t, c.Name); len(traces) > 0 {
			t.Errorf("left after Close: %q", traces)
		}
		if _, err := c.Exec(t.Context(), "true"); err == nil {
			t.Error("Exec after Close succeeds")
		}
	})
}

// TestShow compares what Show and WaitFor ask for themselves with what systemctl says.
func TestShow(t *testing.T) {
	bootEach(t, func(t *testing.T, c *Container) {
		for _, unit := range []string{"dbus.service", "dbus.socket", "none.service"} {
			waited := c.MustWait(t, 30*time.Second, unit, func(Properties) bool { return true })
			all, err := c.Properties(t.Context(), unit)
			if err != nil || len(waited) < 50 {
				t.Fatalf("%s: %d properties by systemctl, %v; %d by the bus", unit, len(all), err, len(waited))
			}
			changing := regexp.MustCompile("^(CPUUsage|Memory|IO|IP|Tasks|NextElapse|Effective|LogRateLimit)")
			for name, value := range waited {
				if want, found := all[name]; found && value != want && !changing.MatchString(name) {
					t.Errorf("%s: %s=%q, want %q", unit, name, value, want)
				}
			}
			for _, name := range []string{"ActiveState", "SubState", "LoadState", "InvocationID", "TimeoutUSec", "ExecStart", "MainPID"} {
				value, err := c.Show(t.Context(), unit, name)
				if want := c.MustExec(t, "systemctl", "show", "--value", "--property="+name, unit); err != nil || value != strings.TrimSuffix(want, "\n") {
					t.Errorf("%s: Show(%s) = %q, %v; want %q", unit, name, value, err, want)
				}
			}
		}
	})
}

// TestServers looks at the root file system of many servers: they are there, and none runs by
// itself.
func TestServers(t *testing.T) {
	Long(t, "its root file system takes two minutes to build")
	c := Boot(t, Servers(Newest), Options{})
	if failed := c.MustExec(t, "systemctl", "--failed", "--no-legend"); failed != "" {
		t.Errorf("units failed at boot: %s", failed)
	}
	if listening := c.MustExec(t, "ss", "-tlnH"); listening != "" {
		t.Errorf("listeners after the boot: %s", listening)
	}
	for _, argv := range [][]string{
		{"redis-server", "--version"}, {"nginx", "-V"}, {"apache2ctl", "-v"}, {"caddy", "version"}, {"haproxy", "-v"}, {"sshd", "-V"},
		{"podman", "--version"}, {"java", "-version"}, {"puma", "--version"}, {"php", "--version"}, {"socat", "-V"},
		{"perl", "-MHTTP::Daemon", "-e", "1"}, {"python3", "-c", "import flask, django"}, {"gunicorn", "--version"}, {"uvicorn", "--version"},
		{"test", "-x", "/usr/share/tomcat10/bin/catalina.sh"},
		{"node", "-e", "for (const m of ['express', 'next', 'tsx']) require.resolve(m, {paths: ['/opt/npm']})"},
		{"/opt/npm/node_modules/@oven/bun-linux-x64-baseline/bin/bun", "--version"},
	} {
		c.MustExec(t, argv...)
	}
}
