//go:build integration

package rollout

import (
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// warmUp is a server on descriptor 3 that answers its first requests with 503, as many as its
// argument says.
const warmUp = `
import os, socket, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
left = int(sys.argv[1])
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        global left
        body = b"instance=%s pid=%d\n" % (os.environ["INSTANCE"].encode(), os.getpid())
        self.send_response(503 if left > 0 else 200)
        left -= 1
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = HTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
`

// testReadyHTTP starts a program that warms up: it has no connection before a request of its own
// was answered well.
func testReadyHTTP(t *testing.T, s *apps.System) {
	const file = "/srv/warmup.py"
	s.MustWriteFile(t, file, warmUp, 0o644)
	a := start(t, s, "warm", "--ready", "http:/health", "--kind=listen", "--", "/usr/bin/python3", file, "3")
	load := a.Load(rig.LoadOptions{Rate: 50})
	a.Reload() // each new instance answers 503 three times, and no client sees any
	checkNoExtra(a)
	a.Unitgen("--start-timeout", "5s", "--", "/usr/bin/python3", file, "1000000")
	refuseReload(a, "did not get ready", "GET /health", "503")
	checkNoExtra(a)
	a.Lossless(load.Stop())
}

// testReadyExec starts a program that never takes its socket, which nobody looks at here.
func testReadyExec(t *testing.T, s *apps.System) {
	a := start(t, s, "blind", "--ready", "exec", "--", "/bin/sleep", "600")
	if post := a.MustShow(t, a.Instance(1), "ExecStartPost"); post != "" {
		t.Errorf("ExecStartPost= is %q, want none", post)
	}
}

// testReadyNotify starts programs of which systemd waits for a word.
func testReadyNotify(t *testing.T, s *apps.System) {
	a := start(t, s, "notifying", "--ready", "notify", "--soak", "1s")
	if kind := a.MustShow(t, a.Instance(1), "Type"); kind != "notify" {
		t.Errorf("Type=%s, want notify", kind)
	}
	load := a.Load(rig.LoadOptions{Rate: 50})
	healthyReload(a)
	a.Unitgen("--start-timeout", "2s", "--", apps.CServer)
	refuseReload(a, "did not get ready: time-out", "did not send READY=1", "--ready=listen")
	checkNoExtra(a)
	a.Lossless(load.Stop())
}

// testReadyFenced starts a program that may talk to nobody but its clients.
func testReadyFenced(t *testing.T, s *apps.System) {
	a := start(t, s, "fenced", "-p", "IPAddressDeny=any")
	a.Evenly()
}

// testNeverReady starts an app whose program listens by itself: the start fails within its time-out
// and says what to do.
func testNeverReady(t *testing.T, s *apps.System) {
	a := apps.New(t, s, "aloof", "--start-timeout", "8s", "--", "/bin/sleep", "600")
	out, err := a.Exec(t.Context(), "systemctl", "start", a.Name)
	if err != nil || out.Status == 0 {
		t.Errorf("start = %+v, %v; want an exit status other than 0", out, err)
	}
	for _, words := range []string{"did not take its socket", "it listens nowhere"} {
		if log := a.Log(a.Name + "*"); !strings.Contains(log, words) {
			t.Errorf("no %q in the journal:\n%s", words, log)
		}
	}
}
