//go:build integration

package generator

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// patient is an app with a fault, and what doctor says of it.
type patient struct {
	name string
	args []string // options of unitgen, "--" and the command; without "--" it is the server
	make string   // shell, before unitgen
	harm string   // shell, after it
	want []string // lines of doctor, without "name: " where they begin with that
}

// hang listens at descriptor 3 and accepts nothing; PID 1 has made that listener.
const hang = "exec /bin/sleep infinity"

// resetLimited is what to type about a balancer that was started too often.
const resetLimited = `systemctl stop 'limited@*'; ` +
	`systemctl reset-failed limited.service limited-control.socket limited-diag.socket limited.socket && systemctl start limited`

// patients are broken all at once, but for the first. {port} is the port of the app, {other} is one
// that thief.socket has.
var patients = []patient{
	{name: "healthy", args: []string{"--instances=2", "--now"}},
	{name: "script", args: []string{"--", "/srv/many/script", "a b"}, make: `printf '#!/bin/sh\n' >script; chmod +x script`,
		harm: `printf '#!/opt/tool/bin/tool -w\n' >script`,
		want: []string{`the command "/srv/many/script" is a script for "/opt/tool/bin/tool", which does not exist: unitgen script -- INTERPRETER -w /srv/many/script 'a b'`}},
	{name: "byenv", args: []string{"--", "/usr/bin/env", "A=1", "mylang", "x"}, make: `ln -s /bin/true /usr/local/bin/mylang`, harm: `rm /usr/local/bin/mylang`,
		want: []string{`the command "/usr/bin/env" starts "mylang", which is not in a unit's PATH (/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin): ` +
			`unitgen byenv --env=A=1 -- "$(command -v mylang)" x`}},
	{name: "taken", harm: `systemd-run --unit=many-thief --socket-property=ListenStream={port} -- /bin/sleep infinity`,
		want: []string{`many-thief.socket holds port {port}, so the app cannot start: ss -ltnp 'sport = :{port}'`}},
	{name: "beside", args: []string{"--metrics=127.0.0.1:{other}", "--now"},
		harm: `systemctl stop beside-metrics.socket; systemd-run --unit=thief --socket-property=ListenStream={other} -- /bin/sleep infinity`,
		want: []string{`thief.socket holds port {other} of --metrics=, so nobody can read its metrics: ss -ltnp 'sport = :{other}'`}},
	{name: "limited", args: []string{"--now"},
		harm: `mkdir -p {units}/limited.service.d; printf '[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=2\n' >{units}/limited.service.d/x.conf
			systemctl daemon-reload; systemctl restart limited; systemctl restart limited; systemctl restart limited; true`,
		want: []string{
			`{units}/limited.service.d/x.conf sets StartLimitIntervalSec=: nothing brings the balancer back after a crash: ${EDITOR:-vi} {units}/limited.service.d/x.conf`,
			`PID 1 starts limited.service, limited-control.socket, limited-diag.socket, limited.socket no more: too many starts in too short a time ` +
				`(StartLimitBurst=2, StartLimitIntervalSec=1h): ` + resetLimited}},
	{name: "listener", args: []string{"--now"},
		harm: `mkdir -p {units}/listener.socket.d; printf '[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=1\n' >{units}/listener.socket.d/x.conf
			systemctl daemon-reload; systemctl stop listener; systemctl stop listener.socket; systemctl start listener.socket; systemctl stop listener.socket; systemctl start listener.socket; true`,
		want: []string{
			`{units}/listener.socket.d/x.conf sets StartLimitIntervalSec=: a few starts in a row close the port for good: ${EDITOR:-vi} {units}/listener.socket.d/x.conf`,
			`PID 1 starts listener.socket no more: too many starts in too short a time (StartLimitBurst=1, StartLimitIntervalSec=1h): ` +
				`systemctl reset-failed listener.socket && systemctl start listener`}},
	{name: "refused", args: []string{"--now", "--", "/bin/sh", "-c", "echo >/etc/refused.conf; exec " + server},
		want: []string{`refused@1: it runs, but the program writes to /etc/refused.conf, which is read-only in the sandbox; it may write to its state directory, $STATE_DIRECTORY; ` +
			`it said "/bin/sh: 1: cannot create /etc/refused.conf: Read-only file system": unitgen refused -p StateDirectory=refused`}},
	{name: "killed", args: []string{"--now", "-p", "SystemCallErrorNumber=kill", "--", "/bin/sh", "-c", "/usr/bin/nice -n -5 /bin/true; exec " + server},
		want: []string{`killed@1: it runs, but the sandbox kills a process of the program at a system call that it refuses (SystemCallFilter=); ` +
			`it said "Bad system call": unitgen killed -p SystemCallErrorNumber=EPERM`}},
	{name: "further", args: []string{"--now", "--", "/bin/sh", "-c", `/usr/bin/python3 -c "import socket
try: socket.create_server(('', {other}))
except OSError as e: print('admin port {other}:', e)"; exec ` + server},
		want: []string{`further@1: it runs, but the program opens port {other}, which is in use by thief.socket; it said "admin port {other}: [Errno 98] Address already in use`}},
	{name: "hangs", args: []string{"--now", "--ready=exec", "--kind=listen", "--drain-timeout=1s", "--", "/bin/sh", "-c", hang},
		want: []string{`hangs@1: it has accepted no connection for 3s, and 1 wait for it: systemctl restart hangs@1.service`}},
	{name: "fails", args: []string{"--instances=2", "--now", "--", "/bin/sh", "-c", `[ $INSTANCE = 1 ] || { echo no licence; exit 3; }; exec ` + server},
		want: []string{`fails@2: it is not up: the program ended with exit status 3; it said "no licence": unitgen logs fails@2`}},
	{name: "cramped",
		harm: `mkdir -p {units}/cramped@.service.d; printf '[Service]\nTimeoutStopSec=5\n' >{units}/cramped@.service.d/x.conf`,
		want: []string{`{units}/cramped@.service.d/x.conf sets TimeoutStopSec=5, and PID 1 then ends what --drain-timeout= gives 30s: ${EDITOR:-vi} {units}/cramped@.service.d/x.conf`}},
	{name: "pre-fix",
		harm: `mkdir -p {units}/pre-@.service.d; printf '[Service]\nStandardInput=socket\n' >{units}/pre-@.service.d/x.conf`,
		want: []string{`{units}/pre-@.service.d/x.conf sets StandardInput=: the program may get its listener as standard input, which PID 1 then passes in no other way: ` +
			`${EDITOR:-vi} {units}/pre-@.service.d/x.conf`}},
	{name: "crashes", args: []string{"--now"},
		harm: `mkdir -p {units}/crashes.service.d; printf '[Service]\nExecStart=\nExecStart=/bin/false\n' >{units}/crashes.service.d/x.conf
			systemctl daemon-reload; systemctl kill -s KILL --kill-whom=main crashes`,
		want: []string{
			`{units}/crashes.service.d/x.conf sets ExecStart=: the balancer is another program, or has other options than the settings say: ${EDITOR:-vi} {units}/crashes.service.d/x.conf`,
			`its balancer fails: exit status 1: journalctl -e -u crashes.service`}},
}

// testDoctorMany breaks several apps, each in its own way, and has doctor name each fault with its
// fix. It blames no other app.
func testDoctorMany(t *testing.T, s *system) {
	s.MustExec(t, "mkdir", "-p", "/srv/many")
	s.later(t, "sh", "-c", "rm -rf /srv/many "+units+"/pre-@.service.d "+units+"/service.d; systemctl stop thief.socket many-thief.socket; systemctl daemon-reload")
	other := s.newPort()
	var want []string
	var hung net.Conn
	for _, p := range patients {
		port := s.newPort()
		fill := strings.NewReplacer("{port}", fmt.Sprint(port), "{other}", fmt.Sprint(other), "{units}", units).Replace
		s.removeLater(t, p.name)
		s.MustExec(t, "sh", "-ec", "cd /srv/many; "+fill(p.make))
		args := []string{"unitgen", p.name, listenOption(port), "--start-timeout=20s"}
		for _, word := range p.args {
			args = append(args, fill(word))
		}
		if !slices.Contains(args, "--") {
			args = append(args, "--", server)
		}
		if out := s.run(t, args...); out.Status != 0 && p.name != "fails" {
			t.Fatalf("%q = %+v", args, out)
		}
		s.MustExec(t, "sh", "-c", "cd /srv/many; "+fill(p.harm))
		if p.name == "hangs" {
			c, err := s.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Fatal(err)
			}
			hung = c
		}
		for _, line := range p.want {
			if line = fill(line); !strings.HasPrefix(line, p.name+"@") {
				line = p.name + ": " + line
			}
			want = append(want, line)
		}
	}
	defer hung.Close()
	s.MustWait(t, limit, "crashes.service", func(p rig.Properties) bool { return p["ExecMainStatus"] == "1" })
	s.MustWait(t, limit, "fails@2.service", func(p rig.Properties) bool { return p["NRestarts"] != "0" })
	s.MustExec(t, "mkdir", "-p", units+"/service.d")
	s.MustWriteFile(t, units+"/service.d/all.conf", "[Service]\nExecStop=\n", 0o644)
	var names []string // what harms all is said once
	for _, p := range patients {
		names = append(names, p.name)
	}
	slices.Sort(names)
	s.diagnosed(t, append(want, strings.Join(names, ", ")+": "+units+"/service.d/all.conf sets ExecStop=: "+
		"a stop does not drain the instances and close the port; an instance is stopped without a drain: ${EDITOR:-vi} "+units+"/service.d/all.conf"))
	s.MustExec(t, "rm", "-r", units+"/service.d")
	s.MustExec(t, "systemctl", "stop", "crashes", "fails") // they cost CPU time

	// The kernel does not let doctor steer: a balancer that does not run would not start.
	for name, want := range map[string]string{"healthy": "", "crashes": "crashes: its balancer cannot use eBPF here: "} {
		out := s.run(t, "systemd-run", "--quiet", "--wait", "--pipe", "-p", "SystemCallFilter=~bpf", "-p", "SystemCallErrorNumber=EPERM", "unitgen", "doctor", name)
		if !strings.Contains(out.Stdout, want) || want == "" && out.Stdout != "" {
			t.Errorf("without bpf(2) doctor says of %s: %+v", name, out)
		}
	}

	// What it says to type mends it.
	s.MustExec(t, "sh", "-ec", "rm -r "+units+"/limited.service.d "+units+"/listener.socket.d; systemctl daemon-reload\n"+
		resetLimited+"\nsystemctl reset-failed listener.socket && systemctl start listener\n"+
		"systemctl stop many-thief.socket thief.socket; systemctl start beside-metrics.socket\n")
	for _, name := range []string{"limited", "listener", "taken", "beside"} {
		if out := s.run(t, "unitgen", "doctor", name); out.Status != 0 {
			t.Errorf("after its fix doctor says of %s:\n%s", name, out.Stdout)
		}
	}
}

// diagnosed checks that doctor finds all of want and nothing else. A line of want may be the
// beginning of one of doctor's.
func (s *system) diagnosed(t *testing.T, want []string) {
	t.Helper()
	began := time.Now()
	out := s.run(t, "unitgen", "doctor")
	t.Logf("doctor took %s", time.Since(began).Round(time.Millisecond))
	left := slices.Clone(want)
	for line := range strings.Lines(out.Stdout) {
		at := slices.IndexFunc(left, func(w string) bool { return strings.HasPrefix(line, w) })
		if at < 0 {
			t.Errorf("doctor says too much:\n%s", line)
			continue
		}
		left = slices.Delete(left, at, at+1)
	}
	for _, line := range left {
		t.Errorf("doctor does not say:\n%s", line)
	}
	if out.Status != 1 {
		t.Errorf("doctor = %d\n%s", out.Status, out.Stderr)
	}
}
