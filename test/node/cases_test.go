//go:build integration

package node

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// A request that takes longer than all the rest of a restart is finished, on a connection that is
// kept alive too.
func testInFlight(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "inflight")
	a.start("--", node, "plain.js", strconv.Itoa(a.port))
	var slow []*slowRequest
	for i := range 16 {
		connection := "close"
		if i%2 == 0 {
			connection = "keep-alive"
		}
		slow = append(slow, a.slow(connection))
	}
	s.MustExec(t, "systemctl", "restart", a.name+"@*.service")
	for i, r := range slow {
		if status, err := r.answer(); err != nil || status != http.StatusOK {
			t.Errorf("request %d was answered with %d, %v", i, status, err)
		}
	}
	a.awaitUp()
	for i := range a.n {
		if n := a.MustShow(t, a.instance(i+1), "NRestarts"); n != "0" {
			t.Errorf("instance %d was restarted by systemd %s times", i+1, n)
		}
	}
}

// slowRequest is a request that the program has begun to work on.
type slowRequest struct {
	net.Conn
	read *bufio.Reader
}

// slow sends a request that takes nine seconds, longer than a process that has closed its servers
// may keep idle connections. It returns when the program has begun to answer, by "100 Continue":
// only the program knows that there is more to come.
func (a *app) slow(connection string) *slowRequest {
	a.t.Helper()
	r := a.request("/slow?9000", connection)
	const started = "HTTP/1.1 100 Continue\r\n\r\n"
	head := make([]byte, len(started))
	if _, err := io.ReadFull(r.read, head); err != nil || string(head) != started {
		a.t.Fatalf("slow request was answered with %q, %v", head, err)
	}
	return r
}

// connect makes a connection that has a time limit and is closed at the test's end.
func (a *app) connect() net.Conn {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), limit)
	defer cancel()
	conn, err := a.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", a.port))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { conn.Close() })
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		a.t.Fatal(err)
	}
	return conn
}

// request sends a request on a connection of its own.
func (a *app) request(path, connection string) *slowRequest {
	a.t.Helper()
	conn := a.connect()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\nConnection: %s\r\n\r\n", path, connection); err != nil {
		a.t.Fatal(err)
	}
	return &slowRequest{conn, bufio.NewReader(conn)}
}

func (r *slowRequest) answer() (status int, err error) {
	response, err := http.ReadResponse(r.read, nil)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.ReadAll(response.Body)
	return response.StatusCode, err
}

// kill -9 of the shim loses no process and no request, and what it knew of the processes goes on:
// they drain as before.
func testKillShim(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "killshim")
	a.start("--", node, "plain.js", strconv.Itoa(a.port))
	before := a.pids()
	loads := []*rig.Load{
		a.load(rig.LoadOptions{Clients: 8, Rate: 300}),
		a.load(rig.LoadOptions{Clients: 8, Rate: 100, KeepAlive: true}),
	}
	a.awaitOK(50, loads...)
	for range 3 {
		pid := a.MustShow(t, a.shim(), "MainPID")
		s.MustExec(t, "kill", "-9", pid)
		a.MustWait(t, limit, a.shim(), func(p rig.Properties) bool {
			return p["MainPID"] != pid && p["ActiveState"] == "active" && strings.Contains(p["StatusText"], a.allUp())
		})
		a.awaitOK(50, loads...)
	}
	if after := a.pids(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("processes were %v and are %v", before, after)
	}
	s.MustExec(t, "systemctl", "reload", a.name)
	a.awaitOK(50, loads...)
	a.lossless(loads...)
	for i, pid := range a.pids() {
		if slices.Contains(before, pid) {
			t.Errorf("instance %d is the process of before the reload", i+1)
		}
	}
	a.evenly()
}

func testCrashAtBoot(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "crash")
	a.start("--", node, "plain.js", strconv.Itoa(a.port))
	before := a.pids()
	load := a.load(rig.LoadOptions{Clients: 8, Rate: 200, Want: "version=1"})
	a.awaitOK(50, load)
	s.MustExec(t, "unitgen", a.name, "--", node, "crash.js")
	out, err := s.Exec(t.Context(), "systemctl", "reload", a.name)
	if err != nil || out.Status == 0 {
		t.Errorf("reload to a program that crashes = %+v, %v", out, err)
	}
	journal, err := s.Journal(t.Context(), a.name+"*")
	if err != nil || !strings.Contains(journal, "no database today") {
		t.Errorf("the journal does not tell why: %v\n%s", err, journal)
	}
	if status := a.MustShow(t, a.shim(), "StatusText"); !strings.Contains(status, "rollout failed") {
		t.Errorf("status is %q", status)
	}
	a.awaitOK(50, load)
	a.lossless(load)
	if after := a.pids(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("processes were %v and are %v", before, after)
	}
}

// A program that wants a port of its own choice is told, and so is its admin.
func testWrongPort(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "wrongport")
	out, err := s.Exec(t.Context(), "unitgen", a.name, "--listen="+strconv.Itoa(a.port), "--start-timeout=10s", "--now", "--working-directory=/srv", "--",
		node, "plain.js", "9999")
	if err != nil || out.Status == 0 {
		t.Errorf("start of a program that listens elsewhere = %+v, %v", out, err)
	}
	if !strings.Contains(out.Stderr, "--program-port=9999") {
		t.Errorf("unitgen does not say what to do: %s", out.Stderr)
	}
}

// A program that says 127.0.0.1 is not open to the network without a word: it is refused where the
// app has no such listener, or a line says so.
func testLoopback(t *testing.T, s *system, node string) {
	s.MustWriteFile(t, "/srv/loopback.js", `
require('http').createServer((request, response) => response.end('pid=' + process.pid + '\n')).listen(process.env.PORT, '127.0.0.1');
`, 0o644)
	a := newApp(t, s, node, "loopback")
	s.MustExec(t, "unitgen", a.name, a.size(), fmt.Sprintf("--listen=127.0.0.1:%d", a.port), "--working-directory=/srv", "--now",
		"--", node, "loopback.js")
	a.awaitUp()
	a.evenly()
	if n := a.logged("the program binds"); n > 0 {
		t.Errorf("%d lines say that a program which listens where the app does is open elsewhere", n)
	}
	s.MustExec(t, "systemctl", "stop", a.name)
	s.MustExec(t, "unitgen", a.name, fmt.Sprintf("--listen=0.0.0.0:%d", a.port), "--now")
	a.awaitLog(fmt.Sprintf("the program binds 127.0.0.1:%[1]d, but the app listens on 0.0.0.0:%[1]d", a.port))
}

// What a program opens beside the app's port is its own, and not what comes to the app.
func testMany(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "many")
	a.start("--", node, "many.js")
	servers := []string{"admin", "thread", "child"}
	body := ""
	for strings.Count(body, ":") < len(servers)+2 { // all that it opens has been told
		body = a.get(t.Context())
	}
	for _, what := range servers {
		match := regexp.MustCompile(`"` + what + `":(\d+)`).FindStringSubmatch(body)
		if match == nil {
			t.Errorf("no server of the %s: %s", what, body)
			continue
		}
		b := *a
		if _, err := fmt.Sscan(match[1], &b.port); err != nil || b.port == a.port {
			t.Errorf("the %s listens on %s", what, match[1])
		}
		if own := b.get(t.Context()); !strings.Contains(own, "server="+what) {
			t.Errorf("port %d of the %s answers %q", b.port, what, own)
		}
	}
	for _, udp := range []string{"udp-false", "udp-true"} {
		if !regexp.MustCompile(`"` + udp + `":\d+`).MatchString(body) {
			t.Errorf("%s did not bind: %s", udp, body)
		}
	}
	a.evenly()
}

// The stop is a signal and nothing else: a handler that closes its server and saves its state runs
// in a reload and in a stop, each time to its end, and has counted every request.
func testSavesItsState(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "saves")
	a.start("-p", "StateDirectory="+a.name, "--", node, "stops.js")
	loads := []*rig.Load{a.load(rig.LoadOptions{Clients: 4, Rate: 100}), a.load(rig.LoadOptions{Clients: 4, Rate: 100, KeepAlive: true})}
	a.awaitOK(50, loads...)
	s.MustExec(t, "systemctl", "reload", a.name)
	a.awaitOK(50, loads...)
	asked := 0
	for _, l := range loads {
		r := l.Stop()
		if r.Failed() > 0 {
			t.Errorf("requests were lost: %s", r)
		}
		asked += r.OK
	}
	s.MustExec(t, "systemctl", "stop", a.name)
	saved := 0
	for _, line := range strings.Fields(s.MustExec(t, "sh", "-c", "cat /var/lib/"+a.name+"/*")) {
		n, err := strconv.Atoi(line)
		if err != nil {
			t.Errorf("a program saved %q", line)
		}
		saved += n
	}
	if saved != asked {
		t.Errorf("the programs have counted %d requests, the clients %d", saved, asked)
	}
	for i := range a.n {
		if result := a.MustShow(t, a.instance(i+1), "Result"); result != "success" {
			t.Errorf("instance %d ended with %s", i+1, result)
		}
	}
}

// A program whose code says a port of its own serves the app's port, or its unix socket, and loses
// nothing in a reload. It may be told to by a second command.
func testProgramPort(t *testing.T, s *system, node string) {
	const script = `
const server = require('http').createServer((request, response) => {
  const { port } = server.address();
  response.end('pid=' + process.pid + ' port=' + port + '\n');
});
server.listen(3000);
`
	s.MustWriteFile(t, "/srv/says3000.js", script, 0o644)
	a := newApp(t, s, node, "says")
	path := fmt.Sprintf("/run/says%d.sock", a.port)
	s.MustExec(t, "unitgen", a.name, a.size(), fmt.Sprintf("--listen=%d", a.port), "--working-directory=/srv", "--", node, "says3000.js")
	for network, listen := range map[string]string{"tcp": strconv.Itoa(a.port), "unix": path} {
		s.MustExec(t, "unitgen", a.name, "--listen="+listen, "--program-port=3000", "--now")
		a.awaitUp()
		address, port := listen, 3000
		if network == "tcp" { // the listener is the app's, and says so
			address, port = "127.0.0.1:"+listen, a.port
		}
		l := a.StartLoad(rig.LoadOptions{Network: network, Addr: address, Rate: 100, Timeout: limit, Want: fmt.Sprintf("port=%d", port)})
		s.MustExec(t, "systemctl", "reload", a.name)
		a.awaitOK(100, l)
		a.lossless(l)
		s.MustExec(t, "systemctl", "stop", a.name)
	}
	if out, err := s.Exec(t.Context(), "unitgen", a.name, "--listen=8080", "--listen=8081"); err != nil || out.Status != 2 ||
		!strings.Contains(out.Stderr, "--program-port= goes with one port of --listen=, got 8080 and others") {
		t.Errorf("a second address = %+v, %v", out, err)
	}
}

func testTwoServers(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "two")
	second := s.newPort()
	a.start(fmt.Sprintf("--listen=%d", second), "--", node, "two.js", strconv.Itoa(a.port), strconv.Itoa(second))
	for port, want := range map[int]string{a.port: "server=first", second: "server=second"} {
		b := *a
		b.port = port
		l := b.load(rig.LoadOptions{Requests: 40, Want: want})
		l.Wait()
		b.lossless(l)
	}
	a.evenly()
}

// An ECMAScript module is a program as any other, and its children know nothing of us.
func testModule(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "module")
	a.start("--", node, "module.mjs")
	l := a.load(rig.LoadOptions{Requests: 40, Want: "worker=false options=[]"})
	l.Wait()
	a.lossless(l)
	a.evenly()
}

// TLS sessions are resumed by whichever instance a client comes to, and after a crash of the shim
// and restarts.
func testSecure(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "secure")
	a.n = 4
	a.start("--", node, "secure.js")
	sessions := newSessions()
	a.handshake(sessions)
	resumed := func(when string) {
		t.Helper()
		for range 8 { // each instance twice
			if !a.handshake(sessions) {
				t.Errorf("%s: a session was not resumed", when)
			}
		}
	}
	resumed("at first")
	pid := a.MustShow(t, a.shim(), "MainPID")
	s.MustExec(t, "kill", "-9", pid)
	a.MustWait(t, limit, a.shim(), func(p rig.Properties) bool {
		return p["MainPID"] != pid && p["ActiveState"] == "active" && strings.Contains(p["StatusText"], a.allUp())
	})
	s.MustExec(t, "systemctl", "restart", a.instance(1), a.instance(3))
	a.awaitUp()
	resumed("after a crash of the shim and restarts of two instances")
}

func newSessions() tls.ClientSessionCache { return tls.NewLRUClientSessionCache(1) }

// handshake makes one HTTPS request and says whether it resumed a session.
func (a *app) handshake(sessions tls.ClientSessionCache) bool {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), limit)
	defer cancel()
	plain, err := a.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", a.port))
	if err != nil {
		a.t.Fatal(err)
	}
	conn := tls.Client(plain, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, ClientSessionCache: sessions})
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK {
		a.t.Errorf("HTTPS request was answered with %s, %v", response.Status, err)
	}
	return conn.ConnectionState().DidResume
}

// certificate writes a key and a certificate for localhost.
func certificate(t *testing.T, c *rig.Container) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c.MustWriteFile(t, "/srv/cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})), 0o644)
	c.MustWriteFile(t, "/srv/key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})), 0o644)
}

// kill -9 of an instance takes it off at once, and what waited for it goes to others.
func testKillInstance(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "kill")
	a.start("--", node, "plain.js", strconv.Itoa(a.port))
	load := a.load(rig.LoadOptions{Clients: 8, Rate: 300})
	a.awaitOK(50, load)
	pid := a.MustShow(t, a.instance(2), "MainPID")
	s.MustExec(t, "kill", "-9", pid)
	a.MustWait(t, limit, a.instance(2), func(p rig.Properties) bool { return p["ActiveState"] == "active" && p["MainPID"] != pid })
	a.awaitUp()
	a.awaitOK(100, load)
	r := load.Stop()
	if r.Failures[rig.Refused].Count > 0 || r.Failed() > 8 {
		t.Errorf("more was lost than what the instance worked on: %s", r)
	}
	a.evenly()
}

// Only an instance's main process gets a channel, though everybody may connect.
func testStranger(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "stranger")
	a.start("--", node, "plain.js", strconv.Itoa(a.port))
	path := "/run/unitgen/" + a.name + "/channel"
	out := s.MustExec(t, "setpriv", "--reuid=65534", "--clear-groups", "socat", "-t", "5", "-", "UNIX-CONNECT:"+path)
	if !strings.Contains(out, "only an instance's main process may connect") {
		t.Errorf("a stranger was told %q", out)
	}
	// As often as it likes: that costs the journal a few lines, and instances are still let in.
	s.MustWriteFile(t, "/srv/knock.js", `
const knock = (left) => {
  if (left > 0) require('net').connect(process.argv[2]).resume().on('error', () => {}).on('close', () => knock(left - 1));
};
for (let i = 0; i < 20; i++) knock(250);
`, 0o644)
	s.MustExec(t, "setpriv", "--reuid=65534", "--clear-groups", node, "/srv/knock.js", path)
	s.MustExec(t, "systemctl", "restart", a.instance(1))
	if n := a.logged("channel refused"); n == 0 || n > mostLines {
		t.Errorf("5000 connections of a stranger make %d lines", n)
	}
	a.awaitUp()
	a.evenly()
}

// mostLines is what somebody may cause within a test that takes less than a minute or so: ten at
// once, and one each ten seconds.
const mostLines = 20

// logged counts the lines of the app's journal that have the words.
func (a *app) logged(words string) int {
	a.t.Helper()
	text, err := a.Journal(a.t.Context(), a.name+"*")
	if err != nil {
		a.t.Fatal(err)
	}
	return strings.Count(text, words)
}

// A program that calls listen() without end, for what it may not have, is answered more and more
// slowly: PID 1 and the journal do not notice.
func testInsists(t *testing.T, s *system, node string) {
	s.MustWriteFile(t, "/srv/insists.js", `
const server = require('http').createServer((request, response) => response.end('refused=' + refused + ' pid=' + process.pid + '\n'));
let refused = 0;
const insist = () => require('net').createServer().on('error', () => { refused++; insist(); }).listen(1);
server.listen(process.env.PORT, insist);
`, 0o644)
	a := newApp(t, s, node, "insists")
	a.n = 1
	s.MustExec(t, "unitgen", a.name, a.size(), fmt.Sprintf("--listen=%d", a.port), "--path=handoff",
		"--working-directory=/srv", "--now", "--", node, "insists.js")
	a.awaitUp()
	const burst = 200
	refused := regexp.MustCompile(`refused=(\d+)`)
	count := func() (n int, at time.Time) {
		at = time.Now()
		fmt.Sscan(refused.FindStringSubmatch(a.get(t.Context()))[1], &n)
		return n, at
	}
	first, began := count()
	for first < burst-10 {
		first, began = count()
	}
	last, ended := first, began
	for ended.Sub(began) < 2*time.Second {
		last, ended = count()
	}
	if most := burst + 1 + int(10*ended.Sub(began).Seconds()); last-first > most {
		t.Errorf("%d calls of listen() were answered within %s, want at most %d", last-first, ended.Sub(began), most)
	}
	if n := a.logged("program may not listen"); n == 0 || n > mostLines {
		t.Errorf("%d calls of listen() make %d lines", last, n)
	}
}

// stopTimeout is less than what PID 1 gives a stop that hangs (TimeoutStopSec= with the default
// drain time-out).
const stopTimeout = 40 * time.Second

// Restarting the app renews every process, once, and refuses nobody.
func testRestartApp(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "restart")
	a.start("--", node, "plain.js", strconv.Itoa(a.port))
	before := a.pids()
	load := a.load(rig.LoadOptions{Clients: 8, Rate: 100})
	a.awaitOK(50, load)
	began := time.Now()
	s.MustExec(t, "systemctl", "restart", a.name)
	if took := time.Since(began); took > stopTimeout {
		t.Errorf("the restart took %s: it waited for something that did not come", took)
	}
	a.awaitUp()
	a.awaitOK(50, load)
	a.lossless(load)
	for i, pid := range a.pids() {
		if slices.Contains(before, pid) {
			t.Errorf("instance %d is the process of before", i+1)
		}
	}
	a.evenly()
}

// An idle app sleeps, and the next connection starts it.
func testIdleExit(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "idle")
	a.run("--idle-exit=1s", "--", node, "plain.js", strconv.Itoa(a.port))
	for range 2 {
		a.MustWait(t, limit, a.shim(), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
		a.MustWait(t, limit, a.instance(1), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
		l := a.load(rig.LoadOptions{Clients: 4, Requests: 8})
		l.Wait()
		a.lossless(l)
	}
}

// Without a network of its own a program serves all the same: all that it has is the listener that
// it is given.
func testPrivateNetwork(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "private")
	a.start("-p", "PrivateNetwork=yes", "--", node, "plain.js", strconv.Itoa(a.port))
	a.evenly()
}
