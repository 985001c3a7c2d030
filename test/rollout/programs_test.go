//go:build integration

package rollout

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// program is a real one, run as its example says.
type program struct {
	name    string
	options []string // of unitgen, beyond those that all have
	command []string
	// prepare installs what the program reads for a port; nil: nothing.
	prepare func(t *testing.T, s *apps.System, port int)
	// release makes version the one that starts from now on.
	release func(a *apps.App, version int)

	keepAlive bool // connections serve more than one request
	slow      bool // /slow?ms=5000 takes that long
	reloads   int
	rate      int    // of new connections in a second
	loadedOn  string // the one suite on which it has that many reloads and that rate; empty: each
	kept      int    // clients that keep their connections
	costly    bool   // it starts slowly
}

// sized returns p as it runs on suite. At full length it is a proof by repetition; one reload after
// each kind of accident tells as much about code that has not changed.
func (p program) sized(suite string) program {
	p.kept = 200
	switch {
	case !rig.All():
		p.reloads, p.rate, p.kept = min(p.reloads, 2), min(p.rate, 100), 30
	case p.loadedOn != "" && p.loadedOn != suite:
		p.reloads, p.rate, p.keepAlive = 1, 50, false
	}
	return p
}

func programs() []program {
	env := func(a *apps.App, version int) { a.Unitgen("--env", fmt.Sprintf("APP_VERSION=%d", version)) }
	return []program{
		{name: "go", command: []string{apps.Server}, release: env, keepAlive: true, slow: true, reloads: 10, rate: 1000},
		{
			name: "gunicorn", options: []string{"--working-directory", apps.WSGI, "-p", "SystemCallFilter=@setuid"},
			command: []string{"/usr/bin/gunicorn", "--threads=20", "app:app"},
			release: env, keepAlive: true, slow: true, reloads: 10, rate: 100, loadedOn: "trixie", costly: true,
		},
		{
			name: "uvicorn", options: []string{"--working-directory", apps.ASGI},
			command: []string{"/usr/bin/uvicorn", "--fd", "3", "app:app"},
			release: env, keepAlive: true, slow: true, reloads: 10, rate: 100, loadedOn: "bookworm", costly: true,
		},
		{
			name: "nginx", options: []string{"--env", "NGINX=3;"},
			command:   []string{"/usr/sbin/nginx", "-c", "/srv/nginx.conf"},
			prepare:   func(t *testing.T, s *apps.System, port int) { writeNginx(t, s, port, 1) },
			release:   func(a *apps.App, version int) { writeNginx(a.T, a.System, a.Port, version) },
			keepAlive: true, slow: true, reloads: 10, rate: 1000, loadedOn: "trixie",
		},
		{name: "python", options: []string{"--kind=listen"}, command: []string{"/usr/bin/python3", apps.Python + "/server.py"}, release: env, slow: true, reloads: 1, rate: 50},
		{name: "c", command: []string{apps.CServer}, reloads: 1, rate: 100},
		{
			name: "socat", command: []string{"/usr/bin/socat", "ACCEPT-FD:3,fork", "EXEC:" + apps.Answer},
			release: env, reloads: 1, rate: 50,
		},
	}
}

// writeNginx installs the example for another port and version.
func writeNginx(t *testing.T, s *apps.System, port, version int) {
	t.Helper()
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "examples/nginx/nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	replace := strings.NewReplacer("[::]:3000 ", fmt.Sprintf("[::]:%d ", port), "version=1", fmt.Sprintf("version=%d", version))
	s.MustWriteFile(t, "/srv/nginx.conf", replace.Replace(string(text)), 0o644)
}

func programTests(suite string) []test {
	var tests []test
	for _, p := range programs() {
		if p.name == "socat" && suite == "bookworm" {
			continue // its socat 1.7 has no ACCEPT-FD
		}
		p = p.sized(suite)
		tests = append(tests, test{name: "Program/" + p.name, run: p.test, loaded: p.reloads > 2})
	}
	return tests
}

// start creates the app and starts it, ready by the default check.
func (p program) start(t *testing.T, s *apps.System, options ...string) *apps.App {
	t.Helper()
	port := s.NewPort()
	if p.prepare != nil {
		p.prepare(t, s, port)
	}
	words := append([]string{"--now", "--instances=2"}, p.options...)
	words = append(append(words, options...), "--")
	a := apps.NewAt(t, s, port, "web-"+p.name, append(words, p.command...)...)
	a.AwaitUp(a.N)
	if check := a.MustShow(t, a.Instance(1), "ExecStartPost"); !strings.Contains(check, "--check=listen") {
		t.Errorf("ExecStartPost= is %q, want the default check of readiness", check)
	}
	return a
}

// test runs one program through what happens to it in a life, under load from beginning to end.
func (p program) test(t *testing.T, s *apps.System) {
	if p.costly {
		rig.Long(t, "its starts take most of the time, and test/programs has gunicorn too")
	}
	a := p.start(t, s, "--soak", "100ms")
	a.Evenly()
	load := p.startLoad(a)
	p.restart(a)
	p.killShim(a)
	p.reloadInFlight(a)
	for i := range p.reloads - 1 {
		p.reload(a, 3+i)
		load.awaitOK(a)
	}
	load.stop(a)
	checkNoExtra(a)
	a.Evenly()
	if log := a.Log(a.Shim()); strings.Contains(log, "timed_out=true") {
		t.Errorf("a drain went on to its time-out:\n%s", log)
	}
}

// loads are the clients of a program: some that make a connection for each request, and many that
// keep theirs, a tenth of which ask so often that their connections are never idle.
type loads []*rig.Load

func (p program) startLoad(a *apps.App) loads {
	all := loads{a.Load(rig.LoadOptions{Clients: 16, Rate: p.rate})}
	if p.keepAlive {
		all = append(all,
			a.Load(rig.LoadOptions{KeepAlive: true, Clients: p.kept - p.kept/10, Rate: p.kept / 4}),
			a.Load(rig.LoadOptions{KeepAlive: true, Clients: p.kept / 10, Rate: p.kept / 4}))
	}
	all.awaitOK(a)
	return all
}

func (l loads) awaitOK(a *apps.App) {
	a.T.Helper()
	for _, load := range l {
		a.AwaitOK(load, 20)
	}
}

// stop ends the load and checks that nothing failed.
func (l loads) stop(a *apps.App) {
	a.T.Helper()
	for _, load := range l {
		r := load.Stop()
		a.Lossless(r)
		a.T.Logf("load: %s", r)
	}
}

func (p program) restart(a *apps.App) {
	a.T.Helper()
	before := a.PIDs()
	began := time.Now()
	a.MustSystemctl("restart", a.Instance(2))
	a.T.Logf("restart of one instance took %s", time.Since(began).Round(time.Millisecond))
	after := a.PIDs()
	if after[2] == before[2] {
		a.T.Error("the instance was not restarted")
	}
	before[2] = after[2]
	if !maps.Equal(before, after) {
		a.T.Errorf("processes = %v, want %v: no other is new", after, before)
	}
	a.AwaitUp(a.N)
}

func (p program) killShim(a *apps.App) {
	a.T.Helper()
	before, shim := a.PIDs(), a.PID(a.Shim())
	a.MustExec(a.T, "kill", "-s", "KILL", shim)
	a.AwaitNew(a.Shim(), shim)
	a.AwaitUp(a.N)
	if after := a.PIDs(); !maps.Equal(before, after) {
		a.T.Errorf("processes = %v, before the kill of the shim %v", after, before)
	}
}

// reloadInFlight puts version 2 live while requests of 5 s are in flight, on connections that had
// others before.
func (p program) reloadInFlight(a *apps.App) {
	a.T.Helper()
	land := func() {}
	if p.slow {
		land = fly(a, a.Hold(2*a.N), "/slow?ms=5000")
	}
	before := a.PIDs()
	p.reload(a, 2)
	land()
	for number, pid := range a.PIDs() {
		if pid == before[number] {
			a.T.Errorf("instance %d is not new", number)
		}
	}
}

// reload puts a version live.
func (p program) reload(a *apps.App, version int) {
	a.T.Helper()
	if p.release != nil {
		p.release(a, version)
	}
	began := time.Now()
	a.Reload()
	a.T.Logf("reload to version %d took %s", version, time.Since(began).Round(time.Millisecond))
	if p.release != nil {
		a.Serves(fmt.Sprintf("version=%d", version))
	}
}

// send begins a request on each connection; when it returns they are with the instances.
func send(a *apps.App, conns []*apps.Held, path string) {
	a.T.Helper()
	for _, h := range conns {
		if err := h.Send(path); err != nil {
			a.T.Fatal(err)
		}
	}
}

// fly begins a request on each connection, and hangs up with its answer. land waits for the answers
// and checks that each is of the instance that had the connection.
func fly(a *apps.App, conns []*apps.Held, path string) (land func()) {
	a.T.Helper()
	send(a, conns, path)
	failures := make(chan error, len(conns))
	for _, h := range conns {
		go func() { // awaited by land
			instance, err := h.Receive()
			h.Close()
			if err == nil && instance != h.Instance {
				err = fmt.Errorf("answer of instance %q", instance)
			}
			failures <- err
		}()
	}
	return func() {
		a.T.Helper()
		for range conns {
			if err := <-failures; err != nil {
				a.T.Errorf("request in flight: %v", err)
			}
		}
	}
}

// checkNoExtra checks that nothing of the extra instance is left: no unit, no listener in the shim,
// no mark of it.
func checkNoExtra(a *apps.App) {
	a.T.Helper()
	a.AwaitUp(a.N)
	for _, pattern := range []string{"%s@%d.service", "%s@%d.socket", "%s-join@%d.service"} {
		unit := fmt.Sprintf(pattern, a.Name, a.N+1)
		a.MustWait(a.T, apps.Limit, unit, func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	}
	if files := a.MustExec(a.T, "find", "/run/unitgen/"+a.Name, "-name", "extra-instances"); files != "" {
		a.T.Errorf("a mark of the extra instance is left: %s", files)
	}
}
