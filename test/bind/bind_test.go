//go:build integration

// Package bind tests how the bind() of programs is answered, under a real PID 1: through shells and
// children, in both address families, in every sandbox, and without its supervisor. What servers
// people use is in test/programs.
//
// What is asserted are counts and states, nothing about speed.
package bind

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// program is the server of folder program, in the container.
const program = "/usr/local/bin/program"

// TestPrograms runs on the newest systemd: what differs on the oldest is in TestOldest.
func TestPrograms(t *testing.T) {
	tests := []struct {
		name string
		run  func(*testing.T, *apps.System)
	}{
		{"StaticGo", testStaticGo},
		{"Pipeline", testPipeline},
		{"Nginx", testNginx},
		{"NodeWatch", testNodeWatch},
		{"Families", testFamilies},
		{"Wider", testWider},
		{"ProgramPort", testProgramPort},
		{"Sandbox", testSandbox},
		{"SupervisorKilled", testSupervisorKilled},
		{"Unreadable", testUnreadable},
		{"ChangesUser", testChangesUser},
		{"Forbidden", testForbidden},
		{"OwnFilter", testOwnFilter},
		{"Ring", testRing},
	}
	t.Run("trixie", func(t *testing.T) {
		s := boot(t, "trixie")
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) { tt.run(t, s) })
		}
	})
}

// TestOldest is what the sandbox of units for systemd 252 must let through, of which that of later
// ones has more by itself.
func TestOldest(t *testing.T) {
	t.Run("bookworm", func(t *testing.T) { testStaticGo(t, boot(t, "bookworm")) })
}

// boot is apps.Boot with the programs of this package.
func boot(t *testing.T, suite string) *apps.System {
	t.Helper()
	s := apps.Boot(t, suite)
	binary := filepath.Join(t.TempDir(), "program")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", binary, "./program")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build program: %v\n%s", err, out)
	}
	s.MustCopyIn(t, binary, program, 0o755)
	return s
}

// listenOn is the option for a port at every IPv4 address.
func listenOn(port int) string { return fmt.Sprintf("--listen=0.0.0.0:%d", port) }

// lossless reloads and kills the app under load.
func lossless(a *apps.App) {
	load := a.Load(rig.LoadOptions{})
	a.AwaitOK(load, 50)
	a.Reload()
	a.AwaitOK(load, 50)
	a.Lossless(load.Stop())

	load = a.Load(rig.LoadOptions{Clients: 2})
	a.AwaitOK(load, 50)
	pid := a.PID(a.Instance(1))
	a.Signal(a.Instance(1), "KILL")
	a.AwaitNew(a.Instance(1), pid)
	a.AwaitUp(a.N)
	a.AwaitOK(load, 50)
	a.LostAtMost(load.Stop(), 2)
}

func testStaticGo(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "static", "--now", listenOn(port), "--", program, ":"+strconv.Itoa(port))
	a.AwaitUp(a.N)
	a.Evenly()
	a.Serves("peer=127.0.0.1:")
	lossless(a)
	a.Evenly()
}

// testPipeline has the server behind a shell, in a pipeline.
func testPipeline(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "pipeline", "--now", listenOn(port), "--", "/bin/sh", "-c", fmt.Sprintf("%s :%d 2>&1 | cat", program, port))
	a.AwaitUp(a.N)
	a.Evenly()
	lossless(a)
}

// evenByUnit makes connections one after the other and checks that each instance had its exact
// share, however many processes it has.
func evenByUnit(a *apps.App) {
	a.T.Helper()
	const each = 20
	r := a.Load(rig.LoadOptions{Requests: each * a.N, Clients: 1}).Wait()
	a.Lossless(r)
	units := make(map[string]int)
	for pid, n := range r.PIDs {
		group := strings.TrimSpace(a.MustExec(a.T, "cat", fmt.Sprintf("/proc/%d/cgroup", pid)))
		units[group[strings.LastIndexByte(group, '/')+1:]] += n
	}
	for i := range a.N {
		if n := units[a.Instance(i+1)]; n != each {
			a.T.Errorf("instance %d had %d connections, want %d: %v", i+1, n, each, units)
		}
	}
}

// testNginx has two workers, each with a listener of its own by nginx's own reuseport, which are
// one here.
func testNginx(t *testing.T, s *apps.System) {
	port := s.NewPort()
	s.MustWriteFile(t, "/etc/nginx-bind.conf", fmt.Sprintf(`worker_processes 2;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi; uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
	server {
		listen %d reuseport deferred so_keepalive=on;
		location / { return 200 "pid=$pid peer=$remote_addr\n"; }
	}
}
`, port), 0o644)
	a := apps.NewAt(t, s, port, "proxied", "--now", listenOn(port), "--", "/usr/sbin/nginx", "-c", "/etc/nginx-bind.conf", "-g", "daemon off;")
	a.AwaitUp(a.N)
	evenByUnit(a)
	a.Serves("peer=127.0.0.1")
}

// testNodeWatch has Node.js start the server as its child.
func testNodeWatch(t *testing.T, s *apps.System) {
	port := s.NewPort()
	s.MustWriteFile(t, "/srv/watch/server.js", `require('http').createServer((q, r) => r.end('instance=' + process.env.INSTANCE + ' pid=' + process.pid + ' peer=' + q.socket.remoteAddress + '\n'))
	.listen(process.env.PORT)`, 0o644)
	a := apps.NewAt(t, s, port, "watch", "--now", "--working-directory=/srv/watch", "--", "/usr/bin/node", "--watch", "server.js")
	a.AwaitUp(a.N)
	a.Evenly()
	a.Serves("peer=::ffff:127.0.0.1")
}

// testFamilies has programs that know IPv6 on a port alone, and one that binds an address of IPv4
// on such.
func testFamilies(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "both", "--now", "--", program, "-network", "tcp", ":"+strconv.Itoa(port))
	a.AwaitUp(a.N)
	a.Evenly()
	a.Lossless(a.Load(rig.LoadOptions{Addr: fmt.Sprintf("[::1]:%d", port), Requests: 4 * a.N, Want: "peer=[::1]:"}).Wait())

	port = s.NewPort()
	b := apps.NewAt(t, s, port, "four", "--", program, ":"+strconv.Itoa(port))
	out, err := b.Exec(t.Context(), "unitgen", "four", "--now")
	want := fmt.Sprintf("unitgen: hint: unitgen four --listen=0.0.0.0:%d", port)
	if err != nil || out.Status == 0 || !strings.Contains(out.Stderr, "with IPv4, but the app's listener there is IPv6") || !strings.Contains(out.Stderr, want) {
		t.Errorf("start of an IPv4 program on an IPv6 listener = %+v, %v; want the reason and %q", out, err, want)
	}
}

// testWider has a program that would serve this host alone.
func testWider(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "wider", "--now", listenOn(port), "--", program, "127.0.0.1:"+strconv.Itoa(port))
	a.AwaitUp(a.N)
	a.Evenly()
	want := fmt.Sprintf("the program binds 127.0.0.1:%d, but the app listens on 0.0.0.0:%d; to use the program's address: unitgen wider --listen=127.0.0.1:%d", port, port, port)
	if log := a.Log(a.Instance(1)); !strings.Contains(log, want) {
		t.Errorf("journal = %s; want %q", log, want)
	}
}

func testProgramPort(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "mapped", "--now", listenOn(port), "--program-port=8888", "--", program, ":8888")
	a.AwaitUp(a.N)
	a.Evenly()
	a.Serves("port=8888")
}

// testSandbox has programs that may neither bind nor reach any network, on a port below 1024.
func testSandbox(t *testing.T, s *apps.System) {
	for i, property := range []string{"PrivateNetwork=yes", "SocketBindDeny=any"} {
		port := 81 + i
		a := apps.NewAt(t, s, port, fmt.Sprint("fenced", i), "--now", listenOn(port), "-p", property, "--", program, fmt.Sprint(":", port))
		a.AwaitUp(a.N)
		a.Evenly()
		a.Serves("peer=127.0.0.1:")
	}
}

// testSupervisorKilled kills what answers bind(): connections go on, it is said, and a restart
// mends it.
func testSupervisorKilled(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "orphan", "--now", listenOn(port), "--", program, ":"+strconv.Itoa(port))
	a.AwaitUp(a.N)
	const complaint = "nothing answers the program's bind()"
	if out := a.MustExec(t, "unitgen", "status", "orphan"); strings.Contains(out, complaint) {
		t.Errorf("status before = %s", out)
	}
	anonymous := a.MustExec(t, "sh", "-c", `sed -n 's/^RssAnon:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$(pgrep -f "[l]bshim answer orphan 2 ")/status`)
	if kB, err := strconv.Atoi(strings.TrimSpace(anonymous)); err != nil || kB == 0 || kB > 1024 {
		t.Errorf("what answers bind() has %q kB of memory to itself, want 1 to 1024", anonymous)
	} else {
		t.Logf("what answers bind() has %d kB of memory to itself", kB)
	}
	load := a.Load(rig.LoadOptions{KeepAlive: true})
	a.AwaitOK(load, 50)
	a.MustExec(t, "sh", "-c", `kill -s KILL $(pgrep -f "[l]bshim answer orphan 2 ")`)
	a.AwaitOK(load, 100)
	a.Lossless(load.Stop())
	a.Evenly()
	if out := a.MustExec(t, "unitgen", "status", "orphan"); !strings.Contains(out, "orphan@2: "+complaint) || strings.Contains(out, "orphan@1: ") {
		t.Errorf("status = %s; want %q of orphan@2", out, complaint)
	}
	out, err := a.Exec(t.Context(), "unitgen", "doctor", "orphan")
	if err != nil || !strings.Contains(out.Stdout+out.Stderr, complaint) {
		t.Errorf("doctor = %+v, %v; want %q", out, err, complaint)
	}
	a.MustSystemctl("restart", a.Instance(2))
	a.AwaitUp(a.N)
	if out := a.MustExec(t, "unitgen", "status", "orphan"); strings.Contains(out, complaint) {
		t.Errorf("status after a restart = %s", out)
	}
	a.Evenly()
}

// testUnreadable has a program that its user may execute and not read, of which the kernel shows
// nobody anything.
func testUnreadable(t *testing.T, s *apps.System) {
	port := s.NewPort()
	s.MustExec(t, "install", "-m", "711", program, "/usr/local/bin/unreadable")
	a := apps.NewAt(t, s, port, "unreadable", listenOn(port), "--", "/usr/local/bin/unreadable", ":"+strconv.Itoa(port))
	out, err := a.Exec(t.Context(), "unitgen", "unreadable", "--now")
	for _, want := range []string{"the balancer cannot see what the program binds, as the program's file may be executed but not read", "unitgen: hint: chmod a+r"} {
		if err != nil || out.Status == 0 || !strings.Contains(out.Stderr, want) {
			t.Errorf("start = %+v, %v; want %q", out, err, want)
		}
	}
}

// testChangesUser has a program that becomes another user before it binds, out of sight of what
// runs as the first.
func testChangesUser(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "changes", listenOn(port), "--user=root", "-p", "CapabilityBoundingSet=CAP_SETUID", "-p", "SystemCallFilter=@setuid", "--",
		"/usr/bin/python3", "-c", fmt.Sprintf("import os, socket, time; os.setuid(65534); s = socket.socket(); s.bind(('', %d))", port))
	out, err := a.Exec(t.Context(), "unitgen", "changes", "--now")
	for _, want := range []string{"the balancer cannot see what the program binds, as the program has changed its user", "unitgen: hint: unitgen changes --user=USER"} {
		if err != nil || out.Status == 0 || !strings.Contains(out.Stderr, want) {
			t.Errorf("start = %+v, %v; want %q", out, err, want)
		}
	}
}

// testForbidden may not use seccomp: a program that takes LISTEN_FDS does not mind, and it is said.
func testForbidden(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "forbidden", "--now", listenOn(port), "-p", "SystemCallFilter=~seccomp", "--", apps.Server)
	a.AwaitUp(a.N)
	a.Evenly()
	if log, want := a.Log(a.Instance(1)), "bind() of the program is not answered"; !strings.Contains(log, want) || !strings.Contains(log, "else unitgen forbidden --kind=listen") {
		t.Errorf("journal = %s; want %q", log, want)
	}
}

// testOwnFilter has programs with a seccomp filter of their own: one that decides by itself does no
// harm, one that wants to be asked cannot be served, as the kernel knows one who is asked.
func testOwnFilter(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "filters", "--now", listenOn(port), "--", program, "-filter", "own", ":"+strconv.Itoa(port))
	a.AwaitUp(a.N)
	a.Evenly()

	port = s.NewPort()
	b := apps.NewAt(t, s, port, "asks", listenOn(port), "--", program, "-filter", "notify", ":"+strconv.Itoa(port))
	out, err := b.Exec(t.Context(), "unitgen", "asks", "--now")
	for _, want := range []string{"program wants seccomp notification for itself, which the kernel refuses below that of the balancer", "unitgen: hint: unitgen asks --kind=listen"} {
		if err != nil || out.Status == 0 || !strings.Contains(out.Stderr, want) {
			t.Errorf("start = %+v, %v; want %q", out, err, want)
		}
	}
}

// testRing has a program that binds by io_uring, of which no filter hears: it is said, and without
// io_uring the program binds as others do.
func testRing(t *testing.T, s *apps.System) {
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "ring", listenOn(port), "--", program, "-uring", ":"+strconv.Itoa(port))
	out, err := a.Exec(t.Context(), "unitgen", "ring", "--now")
	for _, want := range []string{fmt.Sprintf("the program opens port %d, which systemd holds for it, and was not given it; it may bind by io_uring", port),
		"unitgen: hint: unitgen ring -p SystemCallFilter=~io_uring_setup\n"} {
		if err != nil || out.Status == 0 || !strings.Contains(out.Stderr, want) {
			t.Errorf("start = %+v, %v; want %q", out, err, want)
		}
	}
	a.MustExec(t, "unitgen", "ring", "-p", "SystemCallFilter=~io_uring_setup", "--now")
	a.AwaitUp(a.N)
	a.Evenly()
}
