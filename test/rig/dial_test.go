//go:build integration

package rig

import (
	"io"
	"testing"
	"time"
)

const nodeServer = `
const http = require('http');
const answer = (req, res) => res.end('instance=1 pid=' + process.pid + '\n');
http.createServer(answer).listen(3000, '127.0.0.1', 511);
http.createServer(answer).listen(3000, '::1', 511);
http.createServer(answer).listen('/run/web.sock', () => {
  require('child_process').execFile('systemd-notify', ['--ready']);
});
`

const nodeUnit = `[Service]
Type=notify
NotifyAccess=all
ExecStart=node /srv/server.js
[Install]
WantedBy=multi-user.target
`

// startNode runs and enables a server that listens on port 3000 and on /run/web.sock.
func startNode(t *testing.T, c *Container) {
	t.Helper()
	c.MustWriteFile(t, "/srv/server.js", nodeServer, 0o644)
	c.MustWriteFile(t, "/etc/systemd/system/node.service", nodeUnit, 0o644)
	c.MustExec(t, "systemctl", "daemon-reload")
	c.MustExec(t, "systemctl", "enable", "--now", "--quiet", "node.service")
}

func TestDialNetworks(t *testing.T) {
	bootEach(t, func(t *testing.T, c *Container) {
		startNode(t, c)
		for _, a := range []struct{ network, addr string }{
			{"tcp", "127.0.0.1:3000"}, {"tcp4", "127.0.0.1:3000"}, {"tcp", "[::1]:3000"}, {"unix", "/run/web.sock"}, {"unix", "/var/run/web.sock"},
		} {
			r := c.StartLoad(LoadOptions{Network: a.network, Addr: a.addr, Requests: 10, Want: "pid="}).Wait()
			if r.OK != 10 {
				t.Errorf("%s %s: %s", a.network, a.addr, r)
			}
		}
		resp, err := c.HTTPClientPerRequest().Get("http://127.0.0.1:3000/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || field(body, "pid=") != c.MustShow(t, "node.service", "MainPID") {
			t.Errorf("body %q, %v; want the PID of node.service", body, err)
		}
	})
}

// TestLoadRate checks that the rig itself makes and counts the connections that other tests ask of
// it.
func TestLoadRate(t *testing.T) {
	c := Boot(t, Suites[len(Suites)-1], Options{})
	startNode(t, c)
	r := c.StartLoad(LoadOptions{Addr: "127.0.0.1:3000", Rate: 1000, Clients: 16, Requests: 3000}).Wait()
	t.Log(r) // a busy machine may need longer than the 3 s; it must not lose any
	if r.OK != 3000 || r.Connections != 3000 || r.Elapsed < 2900*time.Millisecond {
		t.Errorf("3000 requests at 1000 new connections a second: %s", r)
	}
	for _, keepAlive := range []bool{false, true} {
		r := c.StartLoad(LoadOptions{Addr: "127.0.0.1:3000", KeepAlive: keepAlive, Clients: 16, Duration: time.Second}).Wait()
		t.Logf("without a rate, keep-alive %v: %s", keepAlive, r)
		if r.OK == 0 || r.Failed() > 0 {
			t.Errorf("keep-alive %v: %s", keepAlive, r)
		}
	}
	l := c.StartLoad(LoadOptions{Addr: "127.0.0.1:3000", Clients: 4})
	if err := l.WaitOK(t.Context(), 100); err != nil {
		t.Fatal(err)
	}
	c.MustExec(t, "systemctl", "kill", "--signal=KILL", "node.service")
	c.MustWait(t, 30*time.Second, "node.service", func(p Properties) bool { return p["ActiveState"] != "active" })
	if r := l.Stop(); r.Failures[Refused].Count == 0 {
		t.Errorf("load on a server that was killed: %s", r)
	}
}
