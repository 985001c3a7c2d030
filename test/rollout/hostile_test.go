//go:build integration

package rollout

import (
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// hostile is a server on descriptor 3 that does to its listener what the path says. As it ends it
// shuts the listener down, as programs do that take it for their own alone, and sets options that
// its successor must not find.
const hostile = `
import ctypes, os, signal, socket, struct, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer
listener = socket.socket(fileno=3)
TO_FIRST = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0)) # ret 0: the first member of the group
PROGRAM = struct.pack("HL", 1, ctypes.addressof(TO_FIRST))
def refused(option):
    try:
        listener.setsockopt(socket.SOL_SOCKET, option, PROGRAM)
    except PermissionError:
        return
    raise SystemExit("option %d was not refused" % option)
def harm(name):
    if name == "steer":
        refused(51) # SO_ATTACH_REUSEPORT_CBPF
        refused(26) # SO_ATTACH_FILTER
    elif name == "detach":
        listener.setsockopt(socket.SOL_SOCKET, 68, 0) # SO_DETACH_REUSEPORT_BPF
    elif name == "shutdown":
        listener.shutdown(socket.SHUT_RDWR)
    elif name == "again":
        listener.shutdown(socket.SHUT_RDWR)
        listener.listen(4096)
    elif name == "backlog":
        threading.Thread(target=backlog, daemon=True).start()
def backlog():
    while True:
        listener.listen(1)
        time.sleep(0.05)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        harm(self.path[1:])
        body = b"instance=%s pid=%d defer=%d\n" % (os.environ["INSTANCE"].encode(), os.getpid(), found)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
def end(*args):
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    listener.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    listener.shutdown(socket.SHUT_RDWR)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
found = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) + (listener.getsockopt(socket.IPPROTO_IP, socket.IP_TTL) == 1)
server = HTTPServer(("", 0), Handler, bind_and_activate=False)
server.socket = listener
while True:
    try:
        server.handle_request()
    except (OSError, ValueError): # of a listener that is shut down
        pass
`

// testHostile has an instance attack what it shares with its siblings. Whatever it does,
// connections are spread evenly soon after, and status and journal say what happened. It has no
// supervisor, which would have kept the kernel from seeing what it does to the steering.
func testHostile(t *testing.T, s *apps.System) {
	const file = "/srv/hostile.py"
	s.MustWriteFile(t, file, hostile, 0o644)
	a := start(t, s, "hostile", "--instances=4", "--kind=listen", "--", "/usr/bin/python3", file)
	for _, attack := range []struct{ name, says string }{
		{"steer", ""},
		{"detach", "the steering program was taken off (put back)"},
		{"shutdown", "changed its listener (put back): it did not listen;"},
		{"again", "changed its listener (put back): it did not listen for a moment"},
		{"backlog", "changed its listener (put back): its backlog was made smaller"},
	} {
		began := time.Now()
		if _, err := a.Open(1)[0].Get("/" + attack.name); err != nil && attack.name != "shutdown" {
			t.Errorf("%s: %v", attack.name, err)
		}
		if attack.says != "" {
			a.AwaitStatus(strings.TrimSuffix(attack.says, ";"))
			t.Logf("%s: put back and said after at most %v", attack.name, time.Since(began).Round(time.Millisecond))
			if log := a.Log(a.Shim()); !strings.Contains(log, strings.TrimSuffix(attack.says, ";")) {
				t.Errorf("%s: the journal does not say it:\n%s", attack.name, log)
			}
		}
		a.Evenly()
	}
	if out, err := s.Exec(t.Context(), "unitgen", "doctor", a.Name); err != nil || !strings.Contains(out.Stdout, "the steering program was taken off") {
		t.Errorf("doctor says nothing of it: %+v, %v", out, err)
	}
	// Each of its processes shuts the listener down as it ends, and the next ones do not notice.
	load := a.Load(rig.LoadOptions{Rate: 50, Want: "defer=0"})
	healthyReload(a)
	a.MustSystemctl("restart", a.Instance(2))
	a.AwaitUp(4)
	a.MustSystemctl("stop", a.Instance(3))
	a.MustSystemctl("start", a.Instance(3))
	a.AwaitUp(4)
	a.Lossless(load.Stop())
	a.Evenly()
}

// testDeferAccept has listeners that hand over no connection before it has sent something: a
// release that accepts nothing must not pass for that.
func testDeferAccept(t *testing.T, s *apps.System) {
	a := apps.New(t, s, "deferred", "--start-timeout", "3s")
	a.DropIn("deferred@.socket", "[Socket]\nDeferAcceptSec=30\n")
	a.MustSystemctl("start", a.Name)
	a.AwaitUp(a.N)
	load := a.Load(rig.LoadOptions{Rate: 50})
	healthyReload(a)
	a.Unitgen("--", "/bin/sleep", "infinity")
	refuseReload(a, "did not get ready")
	a.Lossless(load.Stop())
}
