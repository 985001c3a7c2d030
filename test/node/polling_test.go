//go:build integration

package node

import (
	"fmt"
	"strings"
	"testing"
)

// testPolling runs Socket.IO without WebSockets: the requests of a session come on many
// connections, and only the instance that began it knows it. With --strategy=source-hash a client
// stays with its instance, also over a crash of the balancer.
func testPolling(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "polling")
	a.n = 4
	s.MustExec(t, "unitgen", a.name, a.size(), fmt.Sprintf("--listen=%d", a.port), "--strategy=source-hash", "--soak=200ms",
		"--working-directory=/srv", "--now", "--", node, "socketio.js")
	a.awaitUp()
	const clients = 12
	instances := make(map[string]bool)
	for line := range strings.Lines(s.MustExec(t, "python3", "-c", poll, fmt.Sprint(a.port), fmt.Sprint(clients), a.name)) {
		instances[strings.TrimSpace(line)] = true
	}
	if len(instances) < 2 {
		t.Errorf("sessions of %d clients were all with %v", clients, instances)
	}
	if out := s.MustExec(t, "unitgen", "status", a.name); !strings.Contains(out, "Path: steer") {
		t.Errorf("unitgen status says\n%s", out)
	}
}

// poll has clients of different addresses each keep a session of Engine.IO's protocol (0 open, 4
// message; 0 connect and 2 event of Socket.IO's) by polling, each request on a connection of its
// own, while the balancer is killed in between. It prints who answered each.
const poll = `
import http.client, json, subprocess, sys
port, clients, app = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def ask(source, method, path, body=None):
    c = http.client.HTTPConnection("127.0.0.1", port, 60, (source, 0))
    c.request(method, path, body)
    r = c.getresponse()
    text = r.read().decode()
    assert r.status == 200, (source, method, path, r.status, text)
    c.close()
    return text

def session(source):
    path = "/socket.io/?EIO=4&transport=polling"
    path += "&sid=" + json.loads(ask(source, "GET", path)[1:])["sid"]
    assert ask(source, "POST", path, "40") == "ok"
    answer = ask(source, "GET", path)
    assert answer.startswith("40{"), answer
    return path

def echo(source, path, text):
    assert ask(source, "POST", path, '42["echo","%s"]' % text) == "ok"
    answer = ask(source, "GET", path)
    assert text in answer, answer

sources = ["127.1.1.%d" % (i + 1) for i in range(clients)]
sessions = [(source, session(source)) for source in sources]
for s in sessions:
    echo(*s, "first")
subprocess.run(["systemctl", "kill", "-s", "KILL", app + ".service"], check=True)
for s in sessions:
    echo(*s, "second")
for source in sources:
    print(ask(source, "GET", "/").split()[0])
`
