//go:build integration

package rollout

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testKillShimInDrain kills the shim while instances drain whose programs end in the middle of what
// they do: the drains go on with the next shim.
func testKillShimInDrain(t *testing.T, s *apps.System) {
	a := start(t, s, "orphaned", crude...)
	load := a.Load(rig.LoadOptions{Rate: 50})
	land := fly(a, a.Hold(4*a.N), "/slow?ms=6000")
	restarted := make(chan error, 1)
	units := []string{"restart"}
	for i := range a.N {
		units = append(units, a.Instance(i+1))
	}
	go func() { restarted <- a.Systemctl(t.Context(), units...) }()
	for i := range a.N {
		a.AwaitStatus(a.Name + "@" + string(rune('1'+i)) + " draining")
	}
	pid := a.PID(a.Shim())
	a.MustExec(t, "kill", "-s", "KILL", pid)
	a.AwaitNew(a.Shim(), pid)
	land()
	if err := <-restarted; err != nil {
		t.Errorf("restart of the instances: %v", err)
	}
	a.AwaitUp(a.N)
	a.Lossless(load.Stop())
	if log := a.Log(a.Shim()); strings.Contains(log, "timed_out=true") {
		t.Errorf("a drain went on to its time-out:\n%s", log)
	}
}

// sudden is a web server in Python that knows no signal: SIGTERM ends it in the middle of what it
// does.
const sudden = `import os, socket, time, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
BODY = "instance={} pid={}\n".format(os.environ["INSTANCE"], os.getpid()).encode()
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        time.sleep(int(query.get("ms", ["20"])[0]) / 1000)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY))
    def log_message(self, *args): pass
server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
`

// testKillShimInStop kills the shim while its app stops. PID 1 starts no other one then, so each
// drain counts by itself.
func testKillShimInStop(t *testing.T, s *apps.System) {
	const file = "/srv/sudden.py"
	s.MustWriteFile(t, file, sudden, 0o644)
	a := start(t, s, "lone", "--kind=listen", "--", "/usr/bin/python3", file)
	for _, moment := range []struct {
		name string
		come func()
	}{
		{"as instances drain", func() {
			a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool {
				return p["ActiveState"] == "deactivating" && strings.Count(p["StatusText"], "draining") == a.N
			})
		}},
		{"as the stop begins", func() {
			a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "deactivating" })
		}},
	} {
		idle := a.Hold(a.N) // holds nobody
		land := fly(a, a.Hold(2*a.N), "/slow?ms=6000")
		pid := a.PID(a.Shim())
		began := time.Now()
		stopped := make(chan error, 1)
		go func() { stopped <- a.Systemctl(t.Context(), "stop", a.Name) }()
		moment.come()
		a.MustExec(t, "kill", "-s", "KILL", pid)
		land()
		if err := <-stopped; err != nil {
			t.Errorf("killed %s: stop: %v", moment.name, err)
		}
		took := time.Since(began)
		t.Logf("killed %s: the stop took %s", moment.name, took.Round(time.Millisecond))
		if took > 25*time.Second {
			t.Errorf("killed %s: the stop took %s, want it to end with the requests and not at the drain time-out", moment.name, took)
		}
		for _, unit := range []string{a.Name + ".socket", a.Name + "-control.socket", a.Instance(1), a.Instance(a.N)} {
			a.MustWait(t, apps.Limit, unit, func(p rig.Properties) bool { return p["ActiveState"] == "inactive" || p["ActiveState"] == "failed" })
		}
		for _, h := range idle {
			h.Close()
		}
		a.MustSystemctl("start", a.Name)
		a.AwaitUp(a.N)
	}
	if log := a.Log(a.Instance(1)); !strings.Contains(log, "without a balancer") {
		t.Errorf("no word of a drain that counts by itself:\n%s", log)
	}
}

// testKillShimEarlyInReload kills a shim that has not answered the first question of a reload yet.
// PID 1 starts the next one when the reload is over, so that one must not wait for an answer.
func testKillShimEarlyInReload(t *testing.T, s *apps.System) {
	a := start(t, s, "early")
	load := a.Load(rig.LoadOptions{Rate: 100})
	shim := a.PID(a.Shim())
	a.Signal(a.Shim(), "STOP")
	done := make(chan error, 1)
	go func() { done <- a.Systemctl(t.Context(), "reload", a.Name) }()
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "reloading" })
	a.MustExec(t, "kill", "-s", "KILL", shim)
	began := time.Now()
	if err := <-done; err == nil {
		t.Error("the reload has succeeded")
	}
	a.AwaitNew(a.Shim(), shim)
	took := time.Since(began)
	t.Logf("the next shim is there after %s", took.Round(time.Millisecond))
	if took > rescueLimit {
		t.Errorf("the next shim is there after %s, want at most %s", took, rescueLimit)
	}
	if log := a.Log(a.Shim()); !strings.Contains(log, "the balancer has ended in the middle of the rollout") {
		t.Errorf("no reason in the journal:\n%s", log)
	}
	healthyReload(a)
	a.Lossless(load.Stop())
}

// testScaleInReload makes the app larger by the number of the extra instance of a reload: while
// that goes on, and after one that was cut off. Who is told that the instance runs keeps it.
func testScaleInReload(t *testing.T, s *apps.System) {
	a := start(t, s, "growing", "--soak", "2s")
	load := a.Load(rig.LoadOptions{Rate: 100})
	for _, cutOff := range []bool{false, true} {
		extra := a.Instance(a.N + 1)
		// A request of which only a part has come holds the drain of its instance, and so the reload,
		// until the app is larger.
		part := a.Open(1)[0]
		if _, err := io.WriteString(part, "GET / HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
		r := startReload(a, "trying the new code")
		a.MustWait(t, apps.Limit, extra, func(p rig.Properties) bool { return p["ActiveState"] == "active" })
		if cutOff {
			a.MustExec(t, "kill", "-s", "KILL", a.MustShow(t, a.Shim(), "ControlPID"))
			if err := <-r.done; err == nil {
				t.Error("the reload that was cut off has succeeded")
			}
		}
		pid := a.PID(extra)
		a.MustExec(t, "unitgen", "scale", a.Name, "+1")
		a.N++
		if _, err := io.WriteString(part, "Host: test\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := part.Receive(); err != nil {
			t.Errorf("request that came in two parts: %v", err)
		}
		if !cutOff {
			if err := <-r.done; err != nil {
				t.Errorf("reload: %v", err)
			}
			if now := a.PID(extra); now != pid {
				t.Errorf("%s was stopped by the reload that had started it", extra)
			}
		}
		a.AwaitUp(a.N)
		healthyReload(a)
	}
	a.Lossless(load.Stop())
}
