//go:build integration

package systemd

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// These tests run as root under a real PID 1, in a throw-away container: they write to
// /run/systemd/system, make PID 1 execute itself and restart the bus. They need the test binary
// alone.

// units are the files that the tests use.
func units() map[string]string {
	return map[string]string{
		"ug-ok.service":     "[Service]\nExecStart=/bin/sleep inf\n",
		"ug-bad.service":    "[Service]\nType=oneshot\nExecStart=/bin/false\n",
		"ug-slow.service":   "[Service]\nType=oneshot\nTimeoutStartSec=300ms\nExecStart=/bin/sleep 60\n",
		"ug-tpl@.service":   "[Service]\nExecStart=/bin/sleep inf\nRestart=always\nRestartSec=50ms\n",
		"ug-argv.service":   "[Service]\nExecStart=/bin/echo \"a b\" %%n $$x\n",
		"ug-wants.service":  "[Unit]\nWants=ug-ok.service\n[Service]\nExecStart=/bin/sleep inf\n",
		"ug-listen.socket":  "[Socket]\nListenStream=/run/ug-listen.sock\n",
		"ug-listen.service": "[Service]\nExecStart=/bin/sleep inf\n",
	}
}

func setUp(t *testing.T) *Conn {
	t.Helper()
	if !Booted("") || os.Geteuid() != 0 {
		t.Fatal("not root under systemd")
	}
	for name, text := range units() {
		if err := os.WriteFile("/run/systemd/system/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Dial(testContext(t), SystemEndpoint(0, ""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Reload(testContext(t)); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "stop", "ug-*") // left by a test that failed
	return c
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(testContext(t), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// endpoints are both ways to PID 1.
func endpoints() map[string]Endpoint {
	return map[string]Endpoint{"private": {Private: "/run/systemd/private"}, "bus": SystemEndpoint(1, "")}
}

func TestRealJobs(t *testing.T) {
	setUp(t)
	for name, e := range endpoints() {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			c, err := Dial(ctx, e)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if v, err := c.Version(ctx); err != nil || v < 252 {
				t.Errorf("Version() = %d, %v", v, err)
			}
			err = c.Run(ctx, Job{Verb: Start, Unit: "ug-ok.service"}, Job{Verb: Start, Unit: "ug-bad.service"},
				Job{Verb: Start, Unit: "ug-slow.service"}, Job{Verb: Start, Unit: "ug-none.service"})
			text := err.Error()
			for _, want := range []string{`start ug-bad.service: job ended with result "failed"`, `start ug-slow.service: job ended with result "failed"`, "ug-none.service"} {
				if !strings.Contains(text, want) {
					t.Errorf("error %q lacks %q", text, want)
				}
			}
			var job *JobError
			if !errors.As(err, &job) || !IsNoSuchUnit(err) {
				t.Errorf("error %v: want a JobError and NoSuchUnit in it", err)
			}
			s, err := c.Unit(ctx, "ug-ok.service")
			if err != nil || s.ActiveState != "active" || s.MainPID == 0 || s.ControlGroup == "" || s.JobType != "" || s.Since().IsZero() {
				t.Errorf("after start: %+v, %v", s, err)
			}
			if s, err := c.Unit(ctx, "ug-bad.service"); err != nil || s.ActiveState != "failed" || s.Result != "exit-code" || s.ExecMainStatus != 1 {
				t.Errorf("after a failure: %+v, %v", s, err)
			}
			checkWitness(t, c, "ug-ok.service", "ug-bad.service", "ug-slow.service", "ug-tpl@never.service")
			if err := c.ResetFailed(ctx, "ug-bad.service"); err != nil {
				t.Error(err)
			}
			if err := c.ResetFailed(ctx, "ug-none.service"); err != nil {
				t.Error(err)
			}
			if err := c.Enqueue(ctx, Job{Verb: Start, Unit: "ug-slow.service"}); err != nil {
				t.Error(err)
			}
			if s, err := c.Unit(ctx, "ug-slow.service"); err != nil || s.JobType != "start" {
				t.Errorf("while its job runs: %+v, %v", s, err)
			}
			checkRest(t, c)
		})
	}
}

// checkRest checks what needs no failing jobs.
func checkRest(t *testing.T, c *Conn) {
	t.Helper()
	ctx := testContext(t)
	if s, err := c.Unit(ctx, "ug-none.service"); err != nil || s.LoadState != "not-found" || s.ActiveState != "inactive" {
		t.Errorf("no file: %+v, %v", s, err)
	}
	if list, err := c.ListUnits(ctx, "ug-ok*"); err != nil || len(list) != 1 || list[0].SubState != "running" {
		t.Errorf("list: %+v, %v", list, err)
	}
	if argv, err := c.ExecStart(ctx, "ug-argv.service"); err != nil || strings.Join(argv, "|") != "/bin/echo|a b|%n|$$x" {
		t.Errorf("ExecStart: %q, %v", argv, err)
	}
	if number, err := c.KillSignal(ctx, "ug-argv.service"); err != nil || number != int(unix.SIGTERM) {
		t.Errorf("KillSignal: %d, %v", number, err)
	}
	if err := c.Run(ctx, Job{Verb: Stop, Unit: "ug-ok.service"}, Job{Verb: Stop, Unit: "ug-slow.service"}); err != nil {
		t.Error(err)
	}
	many := make([]Job, 20)
	for i := range many {
		many[i] = Job{Verb: Start, Unit: "ug-tpl@" + string(rune('a'+i)) + ".service"}
	}
	if err := c.Run(ctx, many...); err != nil {
		t.Error(err)
	}
	for i := range many {
		many[i].Verb = Stop
	}
	if err := c.Run(ctx, many...); err != nil {
		t.Error(err)
	}
}

// A real manager says of a job that has ended that it is unknown, and how a reload ended.
func TestRealJobThatEndedUnheard(t *testing.T) {
	setUp(t)
	run(t, "systemctl", "start", "ug-ok.service")
	for name, e := range endpoints() {
		for _, verb := range []Verb{Reload, Restart, Stop} { // the last one of a unit that is forgotten then, too
			c, err := DialToStay(testContext(t), e)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			r := jobRun{waiting: map[dbus.ObjectPath]Job{managerPath + "/job/4000000000": {Verb: verb, Unit: "ug-ok.service"}}}
			if err := c.use(testContext(t), func(l *link) error { return r.follow(testContext(t), l) }); err != nil {
				t.Errorf("%s, %s: %v", name, verb, err)
			}
			if err := errors.Join(r.failed...); err != nil {
				t.Errorf("%s, %s: %v", name, verb, err)
			}
		}
	}
}

func TestRealEnable(t *testing.T) {
	c := setUp(t)
	ctx := testContext(t)
	if err := os.WriteFile("/etc/systemd/system/ug-en.service", []byte("[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if changed, err := c.EnableUnitFiles(ctx, "ug-en.service"); err != nil || changed != want {
			t.Errorf("enable: %v, %v, want %v", changed, err, want)
		}
	}
	if _, err := os.Lstat("/etc/systemd/system/multi-user.target.wants/ug-en.service"); err != nil {
		t.Error(err)
	}
}

func TestRealWatcher(t *testing.T) {
	for name, e := range endpoints() {
		t.Run(name, func(t *testing.T) {
			c := setUp(t) // daemon-reexec ends it
			lost := make(chan error, 64)
			w := observe(NewWatcher(WatcherOptions{Endpoint: e, Properties: allSignalled, Lost: func(err error) { lost <- err }}))
			defer w.Close()
			watchLife(t, w, c)
			for round := range 3 {
				watchUpheavals(t, w, round)
			}
			t.Logf("%d reports of lost and found", len(lost))
		})
	}
}

// observer remembers the last event of each unit, so that waiting for one unit loses nothing of
// another.
type observer struct {
	*Watcher
	last map[string]UnitState
}

func observe(w *Watcher) *observer { return &observer{w, make(map[string]UnitState)} }

// until reads events until the last one of unit is as wanted.
func (o *observer) until(t *testing.T, unit, want string, is func(UnitState) bool) {
	t.Helper()
	limit := time.After(15 * time.Second)
	for !is(o.last[unit]) {
		select {
		case s := <-o.Events():
			o.last[s.Name] = s
		case <-limit:
			t.Fatalf("%s did not become %s, but is %+v", unit, want, o.last[unit])
		}
	}
}

func (o *observer) untilActive(t *testing.T, unit, active string, pid int) {
	t.Helper()
	o.until(t, unit, fmt.Sprint(active, " with PID ", pid), func(s UnitState) bool { return s.ActiveState == active && s.MainPID == pid })
}

func (o *observer) untilSub(t *testing.T, unit, sub string) {
	t.Helper()
	o.until(t, unit, sub, func(s UnitState) bool { return s.SubState == sub })
}

func (o *observer) untilLoad(t *testing.T, unit, load string) {
	t.Helper()
	o.until(t, unit, load, func(s UnitState) bool { return s.LoadState == load })
}

// pidOf is the main process as another client than ours has it.
func pidOf(t *testing.T, unit string) int {
	t.Helper()
	ctx := testContext(t)
	c, err := systemd.NewSystemdConnectionContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := c.GetServicePropertyContext(ctx, unit, "MainPID")
	if err != nil {
		t.Fatal(err)
	}
	return int(p.Value.Value().(uint32))
}

// checkWitness compares what we read of units with what go-systemd's client reads.
func checkWitness(t *testing.T, c *Conn, units ...string) {
	t.Helper()
	ctx := testContext(t)
	witness, err := systemd.NewSystemdConnectionContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer witness.Close()
	for _, unit := range units {
		got, err := c.Unit(ctx, unit)
		if err != nil {
			t.Error(err)
		}
		p, err := witness.GetAllPropertiesContext(ctx, unit)
		if err != nil {
			t.Fatal(err)
		}
		invocation, _ := p["InvocationID"].([]byte)
		for what, pair := range map[string][2]any{
			"LoadState": {got.LoadState, p["LoadState"]}, "ActiveState": {got.ActiveState, p["ActiveState"]}, "SubState": {got.SubState, p["SubState"]},
			"InvocationID": {got.InvocationID, hex.EncodeToString(invocation)}, "MainPID": {got.MainPID, p["MainPID"]},
			"ControlPID": {got.ControlPID, p["ControlPID"]}, "NRestarts": {got.NRestarts, p["NRestarts"]}, "Result": {got.Result, p["Result"]},
			"ExecMainCode": {got.ExecMainCode, p["ExecMainCode"]}, "ExecMainStatus": {got.ExecMainStatus, p["ExecMainStatus"]},
			"StatusText": {got.StatusText, p["StatusText"]}, "ControlGroup": {got.ControlGroup, p["ControlGroup"]},
			"ActiveEnter": {got.ActiveEnter, p["ActiveEnterTimestamp"]}, "InactiveExit": {got.InactiveExit, p["InactiveExitTimestamp"]},
			"StateChange": {got.StateChange, p["StateChangeTimestamp"]},
		} {
			if fmt.Sprint(pair[0]) != fmt.Sprint(pair[1]) {
				t.Errorf("%s of %s is %v, go-systemd says %v", what, unit, pair[0], pair[1])
			}
		}
	}
}

func watchLife(t *testing.T, w *observer, c *Conn) {
	t.Helper()
	ctx := testContext(t)
	const unit = "ug-tpl@1.service"
	w.Watch(unit)
	w.Watch("ug-listen.socket")
	w.untilActive(t, unit, "inactive", 0)
	for range 20 {
		if err := c.Run(ctx, Job{Verb: Start, Unit: unit}); err != nil {
			t.Fatal(err)
		}
		w.untilActive(t, unit, "active", pidOf(t, unit))
		if err := c.Run(ctx, Job{Verb: Stop, Unit: unit}); err != nil {
			t.Fatal(err)
		}
		w.untilActive(t, unit, "inactive", 0)
	}
	if err := c.Run(ctx, Job{Verb: Start, Unit: "ug-listen.socket"}, Job{Verb: Start, Unit: unit}); err != nil {
		t.Fatal(err)
	}
	w.untilActive(t, "ug-listen.socket", "active", 0)
	w.untilActive(t, unit, "active", pidOf(t, unit))
	run(t, "systemctl", "kill", "-s", "KILL", unit) // automatic restart
	w.untilSub(t, unit, "auto-restart")
	w.untilSub(t, unit, "running")
	w.Forget("ug-listen.socket")
	run(t, "systemctl", "stop", unit, "ug-listen.socket")
	w.untilActive(t, unit, "inactive", 0)
}

// watchUpheavals changes the state of a unit around everything that may cut the Watcher off.
func watchUpheavals(t *testing.T, w *observer, round int) {
	t.Helper()
	const unit = "ug-tpl@2.service"
	w.Watch(unit)
	w.untilActive(t, unit, "inactive", 0)
	for _, upheaval := range [][]string{{"daemon-reexec"}, {"daemon-reload"}, {"restart", "dbus.service"}} {
		run(t, "systemctl", "reset-failed", "dbus.service") // its start limit counts restarts too
		run(t, "systemctl", upheaval...)
		run(t, "systemctl", "start", unit)
		w.untilActive(t, unit, "active", pidOf(t, unit))
		run(t, "systemctl", upheaval...)
		run(t, "systemctl", "stop", unit)
		w.untilActive(t, unit, "inactive", 0)
		t.Logf("round %d: %s ok", round, upheaval[0])
	}
	// A unit file that goes and comes.
	file := "/run/systemd/system/ug-ok.service"
	w.Watch("ug-ok.service")
	w.untilLoad(t, "ug-ok.service", "loaded")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "daemon-reload")
	w.untilLoad(t, "ug-ok.service", "not-found")
	if err := os.WriteFile(file, []byte(units()["ug-ok.service"]), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "daemon-reload")
	w.untilLoad(t, "ug-ok.service", "loaded")
	w.Forget("ug-ok.service")
	w.Forget(unit)
}

// The shim's place: no root, nothing but unix sockets, the system bus. DynamicUser= is left out:
// dbus-daemon refuses such users (systemd issue 22737, open since 250.4; dbus-broker does not).
func TestRealSandbox(t *testing.T) {
	if os.Getenv("UNITGEN_TEST_SANDBOX") != "" {
		sandboxed(t)
		return
	}
	setUp(t)
	run(t, "systemctl", "restart", "ug-tpl@3.service")
	run(t, "systemd-run", "--wait", "--pipe", "-q", "-p", "User=nobody", "-p", "PrivateNetwork=yes",
		"-p", "RestrictAddressFamilies=AF_UNIX", "-p", "ProtectSystem=strict", "-p", "PrivateUsers=yes", "-p", "ProtectProc=invisible",
		"-p", "ProcSubset=pid", "-p", "SystemCallFilter=@system-service", "-p", "MemoryDenyWriteExecute=yes", "-p", "CapabilityBoundingSet=",
		"-E", "UNITGEN_TEST_SANDBOX=1", os.Args[0], "-test.run=^TestRealSandbox$", "-test.v")
}

// sandboxed is TestRealSandbox inside of the sandbox.
func sandboxed(t *testing.T) {
	w := observe(NewWatcher(WatcherOptions{Endpoint: SystemEndpoint(os.Geteuid(), ""), Properties: allSignalled, Lost: func(err error) { t.Log("lost:", err) }}))
	defer w.Close()
	w.Watch("ug-tpl@3.service")
	w.untilSub(t, "ug-tpl@3.service", "running")
	c, err := Dial(context.Background(), SystemEndpoint(os.Geteuid(), ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Run(testContext(t), Job{Verb: Stop, Unit: "ug-tpl@3.service"}); !isAccessDenied(err) {
		t.Errorf("stop by an unprivileged user: %v, want access denied", err)
	}
}

func isAccessDenied(err error) bool {
	return isDBusError(err, "org.freedesktop.DBus.Error.AccessDenied") ||
		isDBusError(err, "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired")
}

// TestRealKeep compares the units that the manager has loaded with and without a Keep.
func TestRealKeep(t *testing.T) {
	setUp(t)
	ctx := testContext(t)
	dial := func(e Endpoint) *Conn {
		c, err := Dial(ctx, e)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c, witness := dial(endpoints()["bus"]), dial(endpoints()["private"])
	loaded := func() int {
		if _, err := witness.Unit(ctx, "ug-wants.service"); err != nil { // after which it is loaded if it was
			t.Fatal(err)
		}
		units, err := witness.ListUnits(ctx, "ug-wants.service", "ug-ok.service")
		if err != nil {
			t.Fatal(err)
		}
		return len(units)
	}
	unloaded := func() {
		for loaded() != 0 { // until ctx ends: PID 1 unloads when it comes to it
		}
	}
	unloaded() // as nobody needs them
	first, second := c.Keep(ctx, "ug-wants.service"), c.Keep(ctx, "ug-wants.service")
	if n := loaded(); n != 2 {
		t.Errorf("%d of 2 units are loaded while they are kept", n)
	}
	first()
	if n := loaded(); n != 2 {
		t.Errorf("%d of 2 units are loaded while they are kept by a second one", n)
	}
	second()
	unloaded()
	witness.Keep(ctx, "ug-wants.service")() // its connection cannot keep, which is no error
	release := c.Keep(ctx, "ug-wants.service")
	c.Close()
	release()
	unloaded()
}
