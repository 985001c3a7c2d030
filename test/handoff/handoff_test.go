//go:build integration

// Package handoff tests apps on the handoff path under a real PID 1: the units that unitgen writes,
// the balancer, and an instance in Go that is the same program as on the steer path.
//
// What is asserted are counts (no request failed, each instance had exactly its share), states and
// reasons. Limits on time are there to end a test that hangs.
package handoff

import (
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m, 4) }

// TestHandoff runs everything with the example in Go.
func TestHandoff(t *testing.T) {
	runAll(t, both, []test{
		{"Spread", testSpread},
		{"LeastConnections", testLeastConnections},
		{"SourceHash", testSourceHash},
		{"Unix", testUnix},
		{"KillShim", testKillShim},
		{"KillShimSourceHash", testKillShimSourceHash},
		{"KillInstance", testKillInstance},
		{"Stuck", testStuck},
		{"AllDown", testAllDown},
		{"Reload", testReload},
		{"Broken", testBroken},
		{"ReadyHTTP", testReadyHTTP},
		{"Foreign", testForeign},
		{"PrivateNetwork", testPrivateNetwork},
		{"Stop", testStop},
		{"IdleExit", testIdleExit},
		{"ChangePath", testChangePath},
	})
}

// test is one that shares a booted system with others, with apps of its own.
type test struct {
	name string
	run  func(*testing.T, *apps.System)
}

// both are the tests that run on systemd 252 too, a smoke set.
var both = []string{"KillShim"}

// runAll runs tests, those that also names on systemd 252 too; program is what their apps run, if
// not the example in Go.
func runAll(t *testing.T, also []string, tests []test, program ...string) {
	rig.Table(t, also, func(t *testing.T, suite string, run rig.Runner) {
		s := apps.Boot(t, suite)
		if len(program) > 0 {
			s.Program = program
		}
		for _, tt := range tests {
			run(tt.name, (*testing.T).Parallel, func(t *testing.T) { tt.run(t, s) })
		}
	})
}

// start starts an app of two instances on the handoff path, or in make test-all of three.
func start(t *testing.T, s *apps.System, name string, words ...string) *apps.App {
	t.Helper()
	return apps.Start(t, s, name, append([]string{"--path=handoff", apps.Size(3)}, words...)...)
}

// killShim kills the shim, and waits until the next one balances.
func killShim(a *apps.App) {
	a.T.Helper()
	pid := a.PID(a.Shim())
	a.MustExec(a.T, "kill", "-s", "KILL", pid)
	a.AwaitNew(a.Shim(), pid)
	a.AwaitUp(a.N)
}

// each has n for each instance of the app.
func each(a *apps.App, n int) map[int]int {
	all := make(map[int]int)
	for i := range a.N {
		all[i+1] = n
	}
	return all
}

// awaitOpen waits until the shim counts so many open connections of each instance.
func awaitOpen(a *apps.App, want map[int]int) {
	a.T.Helper()
	open := make(map[int]int)
	awaitOpenThat(a, func(in control.InstanceStatus) bool {
		open[in.Instance] = in.Connections
		return maps.Equal(open, want)
	}, func() string { return fmt.Sprintf("open connections are %v, want %v", open, want) })
}

// awaitOpenThat asks the shim for its instances until done says so of one. Nobody tells when a
// count changes.
func awaitOpenThat(a *apps.App, done func(control.InstanceStatus) bool, failed func() string) {
	a.T.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for end := time.Now().Add(apps.Limit); time.Now().Before(end); <-look.C {
		if slices.ContainsFunc(a.Status().Instances, done) {
			return
		}
	}
	a.T.Fatal(failed())
}

// rate is that of loads under which something is killed, in connections a second.
func rate() int {
	if rig.All() {
		return 1000
	}
	return 300
}

func testSpread(t *testing.T, s *apps.System) {
	a := start(t, s, "ho-spread", "--strategy=round-robin")
	a.Evenly()
	status := a.Status()
	if status.Path != "handoff" || status.Reason != "asked for" || status.Strategy != "round-robin" {
		t.Errorf("status says path %q, reason %q, strategy %q", status.Path, status.Reason, status.Strategy)
	}
	for _, in := range status.Instances {
		if in.Steered != 40 || in.State != "up" {
			t.Errorf("instance %d is %s and was handed %d connections, want 40", in.Instance, in.State, in.Steered)
		}
	}
	if out := a.MustExec(t, "unitgen", "status", a.Name); !strings.Contains(out, "Path: handoff") {
		t.Errorf("unitgen status says\n%s", out)
	}
	// The shim has no privilege of its own.
	if got := a.MustExec(t, "grep", "CapEff", "/proc/"+a.PID(a.Shim())+"/status"); !strings.Contains(got, "0000000000000000") {
		t.Errorf("capabilities of the shim: %s", got)
	}
}

// testLeastConnections closes the connections of one instance: it gets the next ones, also those
// that come after the shim was killed.
func testLeastConnections(t *testing.T, s *apps.System) {
	a := start(t, s, "ho-least")
	var held []*apps.Held
	for range 10 * a.N { // one after another: a program that is given connections gets only some at a time
		held = append(held, a.Hold(1)...)
	}
	if status := a.Status(); status.Strategy != "least-connections" {
		t.Errorf("strategy is %s", status.Strategy)
	}
	killShim(a)
	awaitOpen(a, each(a, 10))
	for _, h := range held {
		if h.Instance == "2" {
			h.Close()
		}
	}
	open := each(a, 10)
	open[2] = 0
	awaitOpen(a, open)
	for range 10 {
		if got := a.Hold(1)[0].Instance; got != "2" {
			t.Errorf("instance %s got a connection, want 2, which had the fewest", got)
		}
	}
}

// testSourceHash: a client stays with its instance, whoever else comes or goes, and over a restart
// of the balancer.
func testSourceHash(t *testing.T, s *apps.System) {
	start(t, s, "ho-source", "--instances=3", "--strategy=source-hash").Sticky()
}

// testUnix serves a port and a unix socket at a time, each with an exact spread and counts.
func testUnix(t *testing.T, s *apps.System) {
	const path = "/run/ho-unix.sock"
	port := s.NewPort()
	a := apps.NewAt(t, s, port, "ho-unix", "--now", "--listen="+path, fmt.Sprintf("--listen=%d", port), "--strategy=round-robin")
	a.AwaitUp(a.N)
	if reason := a.Status().Reason; reason != "unix sockets cannot be steered" {
		t.Errorf("reason of the path is %q", reason)
	}
	load := func(o rig.LoadOptions) *rig.Load {
		o.Network, o.Addr = "unix", path
		return a.Load(o)
	}
	r := load(rig.LoadOptions{Requests: 120}).Wait()
	a.Lossless(r)
	for pid, n := range r.PIDs {
		if n != 40 {
			t.Errorf("process %d had %d connections, want 40: %v", pid, n, r.PIDs)
		}
	}
	busy := load(rig.LoadOptions{Rate: 300})
	for range 2 {
		a.AwaitOK(busy, 200)
		killShim(a)
	}
	a.Reload()
	a.AwaitOK(busy, 200)
	a.Lossless(busy.Stop())
	a.Evenly() // the port
}

// testKillShim kills the shim under load, at any point of its work: no connection is lost, and no
// instance notices.
func testKillShim(t *testing.T, s *apps.System) {
	a := start(t, s, "ho-kill-shim", "--strategy=round-robin")
	before := a.PIDs()
	load := a.Load(rig.LoadOptions{Rate: rate(), Clients: 32})
	held := a.Hold(9)
	for range 5 {
		a.AwaitOK(load, 300)
		killShim(a)
	}
	a.AwaitOK(load, 300)
	a.Lossless(load.Stop())
	open := each(a, 0)
	for _, h := range held {
		instance, err := h.Get("/")
		if err != nil {
			t.Errorf("connection that was open all the time: %v", err)
		}
		number, _ := strconv.Atoi(instance)
		open[number]++
	}
	if after := a.PIDs(); !maps.Equal(before, after) {
		t.Errorf("processes are %v, before the kills %v", after, before)
	}
	awaitOpen(a, open)
	a.Evenly()
}

// testKillShimSourceHash: established connections live on, and the next shim gives on. It has one
// connection in its hands at a time, between accept4(2) and sendmsg(2); at most that one is lost if
// it dies then.
func testKillShimSourceHash(t *testing.T, s *apps.System) {
	const kills = 3
	a := start(t, s, "ho-kill-hash", "--strategy=source-hash")
	held := a.Hold(20)
	load := a.Load(rig.LoadOptions{Rate: 300})
	for range kills {
		a.AwaitOK(load, 100)
		killShim(a)
		held = append(held, a.Hold(5)...)
	}
	a.AwaitOK(load, 100)
	a.LostAtMost(load.Stop(), kills)
	for i, h := range held {
		if instance, err := h.Get("/"); err != nil || instance != held[0].Instance {
			t.Errorf("connection %d: instance %q answers, %v; want %s", i, instance, err, held[0].Instance)
		}
	}
}

// testKillInstance kills an instance under load: what it was working on is lost, and nothing else.
func testKillInstance(t *testing.T, s *apps.System) {
	for _, strategy := range []string{"round-robin", "source-hash"} {
		a := start(t, s, "ho-kill-"+strategy[:5], "--strategy="+strategy)
		const clients = 8
		load := a.Load(rig.LoadOptions{Clients: clients, Rate: rate()})
		a.AwaitOK(load, 300)
		victim := a.Hold(1)[0].Instance // with source-hash the one that has all
		unit := a.Name + "@" + victim + ".service"
		pid := a.PID(unit)
		a.MustExec(t, "kill", "-s", "KILL", pid)
		a.AwaitNew(unit, pid)
		a.AwaitUp(a.N)
		a.AwaitOK(load, 300)
		a.LostAtMost(load.Stop(), clients)
	}
}

// testStuck freezes an instance: others are served meanwhile, also what it was to accept, and it
// comes back.
func testStuck(t *testing.T, s *apps.System) {
	a := start(t, s, "ho-stuck", "--strategy=round-robin")
	load := a.Load(rig.LoadOptions{Clients: 64, Rate: 300})
	a.AwaitOK(load, 300)
	pid := a.PID(a.Instance(2))
	a.Signal(a.Instance(2), "STOP")
	a.AwaitStatus("ho-stuck@2 stuck")
	a.AwaitOK(load, 1000) // nothing of that is the frozen one's
	a.MustExec(t, "kill", "-s", "CONT", pid)
	a.AwaitUp(a.N)
	a.AwaitOK(load, 300)
	a.Lossless(load.Stop())
	a.Evenly()
	if now := a.PID(a.Instance(2)); now != pid {
		t.Errorf("instance 2 is process %s, was %s", now, pid)
	}
}

// testAllDown stops all instances under load: connections wait, and are served when one is back.
func testAllDown(t *testing.T, s *apps.System) {
	a := start(t, s, "ho-down")
	load := a.Load(rig.LoadOptions{Clients: 16})
	a.AwaitOK(load, 100)
	for i := 1; i <= a.N; i++ {
		a.MustSystemctl("stop", a.Instance(i))
	}
	a.AwaitStatus(fmt.Sprintf("0/%d instances up", a.N))
	conns := a.Open(5)
	for _, c := range conns {
		if err := c.Send("/"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range a.N {
		a.MustSystemctl("start", a.Instance(i+1))
	}
	for _, c := range conns {
		if _, err := c.Receive(); err != nil {
			t.Errorf("connection that waited: %v", err)
		}
	}
	a.AwaitUp(a.N)
	a.AwaitOK(load, 100)
	a.Lossless(load.Stop())
}

// testReload rolls twice under load, with connections that are kept alive beside new ones.
func testReload(t *testing.T, s *apps.System) {
	a := start(t, s, "ho-roll", "--soak=100ms", "--drain-timeout=5s")
	before := a.PIDs()
	fresh := a.Load(rig.LoadOptions{Rate: rate() / 3, Clients: 32})
	kept := a.Load(rig.LoadOptions{Rate: rate() / 5, KeepAlive: true, Clients: 8})
	for range 2 {
		a.Reload()
	}
	a.MustSystemctl("restart", a.Instance(2))
	a.AwaitUp(a.N)
	a.Lossless(fresh.Stop())
	// A client that keeps its connection learns by "Connection: close" that it shall come anew.
	a.Lossless(kept.Stop())
	after := a.PIDs()
	for i, pid := range before {
		if after[i] == pid {
			t.Errorf("instance %d is the same process %s as before the reloads", i, pid)
		}
	}
	idle := a.Hold(6)
	began := time.Now()
	a.MustSystemctl("restart", a.Instance(1))
	t.Logf("restart of an instance with idle connections took %s", time.Since(began).Round(time.Millisecond))
	for _, h := range idle {
		h.Close()
	}
}

// testBroken reloads code that does not come up: the reload fails, and nobody notices.
func testBroken(t *testing.T, s *apps.System) {
	a := start(t, s, "ho-broken")
	before := a.PIDs()
	load := a.Load(rig.LoadOptions{Rate: 200})
	a.AwaitOK(load, 100)
	a.Unitgen("--", "/bin/false")
	if out, err := a.Exec(t.Context(), "systemctl", "reload", a.Name); err != nil || out.Status == 0 {
		t.Errorf("reload of a broken program: %+v, %v", out, err)
	}
	a.AwaitOK(load, 100)
	a.Lossless(load.Stop())
	if after := a.PIDs(); !maps.Equal(before, after) {
		t.Errorf("processes are %v, before the reload %v", after, before)
	}
}

// testReadyHTTP asks each instance for a page before it gets connections, without the port.
func testReadyHTTP(t *testing.T, s *apps.System) {
	a := start(t, s, "ho-http", "--ready=http:/", "--strategy=round-robin")
	a.Evenly()
	out, err := a.Exec(t.Context(), "unitgen", "ho-http-bad", "--listen", fmt.Sprint(s.NewPort()), "--path=handoff", "--ready=http:/nothing",
		"--start-timeout=3s", "--now", "--", apps.Server)
	if err != nil || out.Status == 0 {
		t.Errorf("start without that page: %+v, %v", out, err)
	}
	if log, err := s.Journal(t.Context(), "ho-http-bad*"); err != nil || !strings.Contains(log, "answer is 404") {
		t.Errorf("the journal does not say why (%v):\n%s", err, log)
	}
	s.MustExec(t, "unitgen", "remove", "ho-http-bad")
}

// testForeign starts a program that knows nothing of the handoff path: the reason is said.
func testForeign(t *testing.T, s *apps.System) {
	out, err := s.Exec(t.Context(), "unitgen", "ho-foreign", "--listen", "/run/ho-foreign.sock", "--start-timeout=3s", "--now", "--", "/bin/sleep", "1000")
	if err != nil || out.Status == 0 || !strings.Contains(out.Stderr, "--listen=/run/ho-foreign.sock takes the handoff path") {
		t.Errorf("start of sleep = %+v, %v", out, err)
	}
	if log, err := s.Journal(t.Context(), "ho-foreign*"); err != nil || !strings.Contains(log, "does not ask for connections") {
		t.Errorf("the journal does not say why (%v):\n%s", err, log)
	}
	s.MustExec(t, "unitgen", "remove", "ho-foreign")
}

// testPrivateNetwork runs instances without a network: they serve, and know who their clients are.
func testPrivateNetwork(t *testing.T, s *apps.System) {
	for _, strategy := range []string{"round-robin", "source-hash"} {
		a := start(t, s, "ho-private-"+strategy[:5], "-p", "PrivateNetwork=yes", "--strategy="+strategy)
		conn := a.Open(1)[0]
		if _, err := fmt.Fprint(conn, "GET /peer HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(apps.Limit)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if want := conn.LocalAddr().(*net.TCPAddr).String() + "\n"; err != nil || !strings.HasSuffix(string(answer), want) {
			t.Errorf("%s: instance sees %q (%v), want %q", strategy, answer, err, want)
		}
		a.Lossless(a.Load(rig.LoadOptions{Requests: 30}).Wait())
	}
}

// testStop stops the app with a request in flight: it is answered, the port closes, and nothing
// starts it again.
func testStop(t *testing.T, s *apps.System) {
	a := start(t, s, "ho-stop", "--strategy=round-robin")
	slow := a.Open(1)[0]
	if err := slow.Send("/slow?ms=2000"); err != nil {
		t.Fatal(err)
	}
	awaitBusy(a)
	a.MustSystemctl("stop", a.Name)
	if _, err := slow.Receive(); err != nil {
		t.Errorf("request in flight: %v", err)
	}
	if conn, err := a.DialContext(t.Context(), "tcp", a.Addr()); err == nil {
		conn.Close()
		t.Error("the port is open after the stop")
	}
	units := a.MustExec(t, "systemctl", "list-units", "--plain", "--no-legend", "--state=active,activating,failed", a.Name+".*", a.Name+"[@-]*")
	if strings.TrimSpace(units) != "" {
		t.Errorf("left after the stop:\n%s", units)
	}
	a.MustSystemctl("start", a.Name)
	a.AwaitUp(a.N)
	a.Evenly()
}

// awaitBusy waits until an instance has a connection.
func awaitBusy(a *apps.App) {
	a.T.Helper()
	awaitOpenThat(a, func(in control.InstanceStatus) bool { return in.Connections > 0 },
		func() string { return "no instance has a connection" })
}

// testIdleExit lets the app go to sleep; the next connection wakes it and is served.
func testIdleExit(t *testing.T, s *apps.System) {
	a := apps.New(t, s, "ho-idle", "--path=handoff", apps.Size(3), "--now", "--idle-exit=1s")
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	for i := 1; i <= a.N; i++ {
		a.MustWait(t, apps.Limit, a.Instance(i), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	}
	if instance, err := a.Open(1)[0].Get("/"); err != nil {
		t.Errorf("connection to an app that sleeps: %q, %v", instance, err)
	}
	a.AwaitUp(a.N)
}

// testChangePath takes a program from one path to the other and back.
func testChangePath(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "ho-change")
	for _, path := range []string{"handoff", "steer"} {
		a.Unitgen("--path="+path, "--strategy=round-robin")
		a.AwaitUp(a.N)
		if got := a.Status().Path; got != path {
			t.Errorf("path is %s, want %s", got, path)
		}
		a.Evenly()
	}
	if failed := a.MustExec(t, "systemctl", "list-units", "--plain", "--no-legend", "--state=failed", a.Name+".*", a.Name+"[@-]*"); strings.TrimSpace(failed) != "" {
		t.Errorf("failed:\n%s", failed)
	}
}
