//go:build integration

// Package node tests unmodified Node.js programs under a real PID 1: what `unitgen web --instances
// 4 --listen 3000 --now -- node server.js` promises, with the programs of testdata, on each systemd
// and each Node that is there.
//
// What is asserted are counts and states, nothing about speed.
package node

import (
	"context"
	"embed"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/needs"
	"github.com/unitgen/unitgen/test/rig"
)

// limit ends waits that cannot end.
const limit = 90 * time.Second

//go:embed testdata
var programs embed.FS

// system is a booted container with unitgen and the programs in it.
type system struct {
	*rig.Container

	mu   sync.Mutex
	port int
}

// newPort is a port that no test has used.
func (s *system) newPort() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.port++
	return s.port
}

// app is an app under test.
type app struct {
	*system
	t    *testing.T
	name string
	port int
	n    int // instances
}

// instances are what an app has unless its test says otherwise: with two there is another one.
const instances = 2

// both are the tests that run on systemd 252 too, a smoke set. Node.js of that release is the
// oldest.
var both = []string{"Matrix", "Spread", "Reload"}

func TestNode(t *testing.T) {
	tests := []struct {
		name string
		run  func(*testing.T, *system, string)
	}{
		{"Spread", testSpread},
		{"Reload", testReload},
		{"InFlight", testInFlight},
		{"KillShim", testKillShim},
		{"CrashAtBoot", testCrashAtBoot},
		{"WrongPort", testWrongPort},
		{"ProgramPort", testProgramPort},
		{"Loopback", testLoopback},
		{"Many", testMany},
		{"SavesItsState", testSavesItsState},
		{"TwoServers", testTwoServers},
		{"Module", testModule},
		{"Secure", testSecure},
		{"KillInstance", testKillInstance},
		{"Stranger", testStranger},
		{"Insists", testInsists},
		{"RestartApp", testRestartApp},
		{"IdleExit", testIdleExit},
		{"PrivateNetwork", testPrivateNetwork},
		{"Messages", testMessages},
		{"Polling", testPolling},
		{"Storm", testStorm},
		{"NeverReady", testNeverReady},
		{"Hung", testHung},
		{"OutOfFiles", testOutOfFiles},
		{"OutOfFilesHanded", testOutOfFilesHanded},
		{"Full", testFull},
		{"Memory", testMemory},
		{"Flood", testFlood},
		{"MissingNode", testMissingNode},
		{"Import", testImport},
		{"Permission", testPermission},
		{"LowPort", testLowPort},
		{"UserUnits", testUserUnits},
		{"Page", testPage},
	}
	rig.Table(t, both, func(t *testing.T, suite string, run rig.Runner) {
		s := boot(t, suite)
		const node = "/usr/bin/node"
		version := strings.TrimSpace(s.MustExec(t, node, "--version"))
		for _, version := range versions(suite) {
			run("v"+version+"/Matrix", nil, func(t *testing.T) { testMatrix(t, s, version) })
			run("v"+version+"/Late", nil, func(t *testing.T) { testLate(t, s, version) })
		}
		for _, tt := range tests {
			if tt.name == "Permission" && strings.HasPrefix(version, "v18.") {
				continue // Node.js has no permission model before 20
			}
			run(version+"/"+tt.name, (*testing.T).Parallel, func(t *testing.T) { tt.run(t, s, node) })
		}
	})
}

// versions are those of Node that the matrix runs with: each once, under one systemd or the other.
// In make test these are the oldest and the newest.
func versions(suite string) []string {
	if !rig.All() {
		return map[string][]string{"bookworm": {"18"}, "trixie": {"24"}}[suite]
	}
	return map[string][]string{"bookworm": {"18", "22"}, "trixie": {"20", "24"}}[suite]
}

// boot installs unitgen and the programs. The versions of Node and the frameworks that test/prepare
// has got are in /opt/programs, beside Node of the distribution.
func boot(t *testing.T, suite string) *system {
	t.Helper()
	installed, err := rig.Programs()
	if err != nil {
		needs.Missing(t, "%v", err)
	}
	c := rig.Boot(t, suite, rig.Options{
		Units: []string{"none"}, // each app logs its own journal
		Args:  []string{"--bind-ro=" + installed + ":/opt/programs"},
	})
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	for src, dst := range map[string]string{
		rig.Bin(t, "unitgen"):                                    "/usr/bin/unitgen",
		rig.Bin(t, "lbshim"):                                     "/usr/lib/unitgen/lbshim",
		rig.Bin(t, "lbshim-balancer"):                            "/usr/lib/unitgen/lbshim-balancer",
		filepath.Join(root, "packaging/node/drain.cjs"):          "/usr/lib/unitgen/node/drain.cjs",
		filepath.Join(root, "packaging/sysusers.d/unitgen.conf"): "/usr/lib/sysusers.d/unitgen.conf",
	} {
		c.MustCopyIn(t, src, dst, 0o755)
	}
	c.MustExec(t, "systemd-sysusers")
	entries, err := programs.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		text, err := programs.ReadFile(path.Join("testdata", entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		c.MustWriteFile(t, "/srv/"+entry.Name(), string(text), 0o644)
	}
	c.MustExec(t, "ln", "-s", "/opt/programs/node_modules", "/srv/node_modules")
	certificate(t, c)
	return &system{Container: c, port: 4000}
}

// newApp is an app with a port of its own, not written yet. It is removed at the test's end; a
// failed test logs its journal.
func newApp(t *testing.T, s *system, node, name string) *app {
	t.Helper()
	port := s.newPort()
	a := &app{system: s, t: t, name: name + strconv.Itoa(port), port: port, n: instances}
	t.Cleanup(a.remove)
	return a
}

// start writes and starts the app with its instances. The words are further options of unitgen and
// the command.
func (a *app) start(words ...string) {
	a.t.Helper()
	a.run(words...)
	a.awaitUp()
}

// run is start for an app that may be asleep when it returns.
func (a *app) run(words ...string) {
	a.t.Helper()
	a.MustExec(a.t, append([]string{"unitgen", a.name, a.size(), fmt.Sprintf("--listen=%d", a.port), "--now",
		"--env=APP_VERSION=1", "--working-directory=/srv"}, words...)...)
}

func (a *app) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), limit) // the test's own has ended
	defer cancel()
	if a.t.Failed() {
		text, err := a.Journal(ctx, a.name+"*")
		lines := strings.SplitAfter(text, "\n")
		a.t.Logf("journal of %s (%v):\n%s", a.name, err, strings.Join(lines[max(0, len(lines)-100):], ""))
	}
	if out, err := a.Exec(ctx, "unitgen", "remove", a.name); err != nil || out.Status != 0 {
		a.t.Errorf("unitgen remove %s = %+v, %v", a.name, out, err)
	}
}

func (a *app) shim() string          { return a.name + ".service" }
func (a *app) instance(i int) string { return a.name + "@" + strconv.Itoa(i) + ".service" }

// size is the option for its instances.
func (a *app) size() string { return fmt.Sprintf("--instances=%d", a.n) }

// allUp is what the status line says when all instances are up.
func (a *app) allUp() string { return fmt.Sprintf("%d/%d instances up", a.n, a.n) }

func (a *app) awaitUp() {
	a.t.Helper()
	a.MustWait(a.t, limit, a.shim(), func(p rig.Properties) bool {
		return p["ActiveState"] == "active" && strings.Contains(p["StatusText"], a.allUp())
	})
}

// pids are the main processes of the instances.
func (a *app) pids() []string {
	a.t.Helper()
	var pids []string
	for i := range a.n {
		pids = append(pids, a.MustShow(a.t, a.instance(i+1), "MainPID"))
	}
	return pids
}

func (a *app) load(o rig.LoadOptions) *rig.Load {
	o.Addr, o.Timeout = fmt.Sprintf("127.0.0.1:%d", a.port), limit
	return a.StartLoad(o)
}

func (a *app) awaitOK(n int, loads ...*rig.Load) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), limit)
	defer cancel()
	for _, l := range loads {
		if err := l.WaitOK(ctx, n); err != nil {
			a.t.Fatal(err)
		}
	}
}

// lossless ends loads and fails the test unless every request was answered.
func (a *app) lossless(loads ...*rig.Load) {
	a.t.Helper()
	for _, l := range loads {
		r := l.Stop()
		a.t.Log(r)
		if r.Failed() > 0 || r.OK == 0 {
			a.t.Errorf("requests were lost: %s", r)
		}
	}
}

// evenly makes connections and checks that each instance had exactly its share.
func (a *app) evenly() {
	a.t.Helper()
	a.evenlyBy(8)
}

// evenlyBy is evenly for so many clients at a time.
func (a *app) evenlyBy(clients int) {
	a.t.Helper()
	l := a.load(rig.LoadOptions{Requests: 100 * a.n, Clients: clients})
	r := l.Wait()
	a.lossless(l)
	for _, pid := range a.pids() {
		if n, err := strconv.Atoi(pid); err != nil || r.PIDs[n] != 100 {
			a.t.Errorf("process %s had %d of %d connections, want 100: %v", pid, r.PIDs[n], 100*a.n, r.PIDs)
		}
	}
}

func testSpread(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "spread")
	a.start("--", node, "plain.js", strconv.Itoa(a.port))
	a.evenly()
	if kind := s.MustExec(t, "sh", "-c", "grep -c ^Kind=node /etc/systemd/system/"+a.shim()); strings.TrimSpace(kind) != "1" {
		t.Errorf("the kind was not found to be node")
	}
}

func testReload(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "reload")
	a.start("--", node, "plain.js", strconv.Itoa(a.port))
	before := a.pids()
	loads := []*rig.Load{
		a.load(rig.LoadOptions{Clients: 8, Rate: 300}),
		a.load(rig.LoadOptions{Clients: 20, Rate: 200, KeepAlive: true}),
	}
	a.awaitOK(100, loads...)
	s.MustExec(t, "unitgen", a.name, "--env=APP_VERSION=2")
	s.MustExec(t, "systemctl", "reload", a.name)
	a.awaitOK(100, loads...)
	a.lossless(loads...)
	for _, l := range loads {
		if r := l.Snapshot(); r.Stale > 0 {
			t.Logf("%d requests met a connection that was being closed", r.Stale)
		}
	}
	for i, pid := range a.pids() {
		if slices.Contains(before, pid) {
			t.Errorf("instance %d is the process of before the reload", i+1)
		}
	}
	again := a.load(rig.LoadOptions{Requests: 40, Want: "version=2"})
	again.Wait()
	a.lossless(again)
	a.evenly()
}
