//go:build integration

package node

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// cell is one program of the matrix, under one version of Node.
type cell struct {
	name   string
	argv   []string // after node
	handed bool     // its connections are handed over
	says   int      // the port in its code, which is not the app's
	check  func(*app)
}

var cells = []cell{
	{name: "http", argv: []string{"plain.js"}},
	{name: "https", argv: []string{"secure.js"}, check: (*app).checkSecure},
	{name: "express", argv: []string{"express.js"}},
	{name: "fastify", argv: []string{"fastify.js"}},
	{name: "koa", argv: []string{"koa.js"}},
	{name: "ws", argv: []string{"websocket.js"}, check: (*app).checkWebSockets},
	{name: "socketio", argv: []string{"socketio.js"}, check: (*app).checkSocketIO},
	{name: "esm", argv: []string{"module.mjs"}},
	{name: "net", argv: []string{"net.js"}},
	{name: "cluster", argv: []string{"cluster.js"}},
	{name: "many", argv: []string{"many.js"}},
	{name: "tsx", argv: []string{"--import", "tsx", "typed.ts"}},
	{name: "https-handed", argv: []string{"secure.js"}, handed: true, check: (*app).checkSecure},
	{name: "ws-handed", argv: []string{"websocket.js"}, handed: true, check: (*app).checkWebSockets},
	{name: "net-handed", argv: []string{"net.js"}, handed: true},
	{name: "port-mapped", argv: []string{"plain.js"}, says: 3000},
}

// stripsTypes are the versions that run TypeScript by themselves.
var stripsTypes = map[string]bool{"22": true, "24": true}

// nodeOf is the program of a version that test/prepare has got.
func nodeOf(version string) string {
	return fmt.Sprintf("/opt/programs/node_modules/node%s/bin/node", version)
}

// group is how many programs run at a time.
const group = 4

// inTest are the programs of make test by version: one for each way in which Node.js loads code,
// listens and gets connections.
var inTest = map[string][]string{
	"18": {"esm", "net-handed"},
	"24": {"http", "fastify", "socketio", "cluster", "many", "tsx", "net-handed", "port-mapped"},
}

// cellsOf are the programs that run with a version.
func cellsOf(version string) []cell {
	some, found := inTest[version]
	if rig.All() || !found {
		return cells
	}
	return slices.DeleteFunc(slices.Clone(cells), func(c cell) bool { return !slices.Contains(some, c.name) })
}

// testMatrix runs all programs: connections are spread, a reload loses no request, and neither does
// kill -9 of an instance that has none.
func testMatrix(t *testing.T, s *system, version string) {
	for some := range slices.Chunk(cellsOf(version), group) {
		testGroup(t, s, version, some)
	}
}

func testGroup(t *testing.T, s *system, version string, cells []cell) {
	node := nodeOf(version)
	var apps, plain []*app
	for _, c := range cells {
		a := newApp(t, s, node, c.name)
		port := a.port
		options := []string{"unitgen", a.name, a.size(), fmt.Sprintf("--listen=%d", port), "--soak=200ms", "--working-directory=/srv"}
		if c.handed {
			options = append(options, "--path=handoff", "--strategy=round-robin")
		}
		if c.says != 0 {
			options = append(options, fmt.Sprintf("--program-port=%d", c.says))
		}
		argv := append([]string{"--", node}, c.argv...)
		if c.name == "tsx" && stripsTypes[version] {
			argv = []string{"--", node, "typed.ts"}
		}
		if c.name == "http" {
			argv = append(argv, strconv.Itoa(port))
		}
		s.MustExec(t, append(options, argv...)...)
		apps = append(apps, a)
		if !strings.HasPrefix(c.name, "https") {
			plain = append(plain, a)
		}
	}
	systemctl := func(verb string) {
		t.Helper()
		words := []string{"systemctl", verb}
		for _, a := range apps {
			words = append(words, a.name)
		}
		s.MustExec(t, words...)
	}
	systemctl("start")
	for i, a := range apps {
		a.awaitUp()
		if cells[i].check != nil {
			cells[i].check(a)
		}
	}
	for _, a := range plain {
		a.awaitEven()
	}
	before := processes(apps)
	loads := background(plain)
	systemctl("reload")
	for i, a := range plain {
		a.awaitOK(5, loads[i])
		a.lossless(loads[i])
	}
	for pid := range processes(apps) {
		if before[pid] {
			t.Errorf("process %s is of before the reload", pid)
		}
	}
	var killed []string
	for _, a := range apps {
		killed = append(killed, a.MustShow(t, a.instance(1), "MainPID"))
	}
	s.MustExec(t, append([]string{"kill", "-9"}, killed...)...)
	for _, a := range plain {
		a.spread(20) // to the other instance alone, or to both again
	}
	for i, a := range apps {
		a.MustWait(t, limit, a.instance(1), func(p rig.Properties) bool { return p["ActiveState"] == "active" && p["MainPID"] != killed[i] })
		a.awaitUp()
	}
	for _, a := range plain {
		a.awaitEven()
	}
	systemctl("stop") // all at once: what is left for the test's end is to remove files
}

// processes are the main processes of the apps' instances.
func processes(apps []*app) map[string]bool {
	all := make(map[string]bool)
	for _, a := range apps {
		for i := range a.n {
			all[a.MustShow(a.t, a.instance(i+1), "MainPID")] = true
		}
	}
	return all
}

// background puts a little load on each app, on connections that are kept alive and on others.
func background(apps []*app) []*rig.Load {
	var loads []*rig.Load
	for i, a := range apps {
		l := a.load(rig.LoadOptions{Clients: 3, Rate: 20, KeepAlive: i%2 == 0})
		a.t.Cleanup(func() { l.Stop() })
		a.awaitOK(3, l)
		loads = append(loads, l)
	}
	return loads
}

// spread makes connections, none of which may fail, and returns the processes that they went to.
func (a *app) spread(connections int) map[int]int {
	a.t.Helper()
	l := a.load(rig.LoadOptions{Requests: connections, Clients: 1})
	r := l.Wait()
	if r.Failed() > 0 || r.OK != connections {
		a.t.Fatalf("%s: requests were lost: %s", a.name, r)
	}
	return r.PIDs
}

// awaitEven waits until connections are spread evenly over both instances: the balancer may still
// be taking in that one of them is back.
func (a *app) awaitEven() {
	a.t.Helper()
	const connections = 20
	var seen map[int]int
	for end := time.Now().Add(limit); time.Now().Before(end); {
		seen = a.spread(connections)
		even := len(seen) == a.n
		for _, n := range seen {
			even = even && n == connections/a.n
		}
		if even {
			return
		}
	}
	a.t.Errorf("%s: processes had %v of %d connections", a.name, seen, connections)
}

// checkSecure resumes a TLS session with the other instance.
func (a *app) checkSecure() {
	sessions := newSessions()
	a.handshake(sessions)
	for range 4 {
		if !a.handshake(sessions) {
			a.t.Errorf("a TLS session was not resumed")
		}
	}
}

// checkWebSockets opens connections that go to both instances and stay there.
func (a *app) checkWebSockets() {
	seen := make(map[string]int)
	for range 4 {
		ws := a.webSocket("/")
		first, second := ws.ask("one"), ws.ask("two")
		if strings.TrimSuffix(first, "one") != strings.TrimSuffix(second, "two") {
			a.t.Errorf("a WebSocket was answered %q and %q", first, second)
		}
		seen[strings.TrimSuffix(first, " one")]++
	}
	a.checkHalves(seen)
}

// checkSocketIO does the same by Socket.IO's protocol over WebSockets: 0 is open, 40 connect, 42 an
// event.
func (a *app) checkSocketIO() {
	seen := make(map[string]int)
	for range 4 {
		ws := a.webSocket("/socket.io/?EIO=4&transport=websocket")
		if open := ws.read(); !strings.HasPrefix(open, "0{") {
			a.t.Fatalf("Socket.IO began with %q", open)
		}
		if connected := ws.ask("40"); !strings.HasPrefix(connected, "40{") {
			a.t.Fatalf("Socket.IO answered %q", connected)
		}
		seen[ws.ask(`42["echo","x"]`)]++
	}
	a.checkHalves(seen)
}

func (a *app) checkHalves(seen map[string]int) {
	a.t.Helper()
	if len(seen) != a.n {
		a.t.Errorf("WebSockets went to %v, want to %d processes", seen, a.n)
	}
	for who, n := range seen {
		if n != 4/a.n {
			a.t.Errorf("%d of 4 WebSockets went to %s", n, who)
		}
	}
}

// webSocket is a client of RFC 6455, as far as short texts need it.
type webSocket struct {
	net.Conn
	t       *testing.T
	answers *bufio.Reader
}

// webSocket connects.
func (a *app) webSocket(path string) *webSocket {
	a.t.Helper()
	conn := a.connect()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path)
	ws := &webSocket{conn, a.t, bufio.NewReader(conn)}
	response, err := http.ReadResponse(ws.answers, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		a.t.Fatalf("WebSocket of %s: %+v, %v", a.name, response, err)
	}
	return ws
}

// ask sends a text and returns the next one.
func (ws *webSocket) ask(text string) string {
	ws.t.Helper()
	const final, isText, masked = 0x80, 1, 0x80
	frame := append([]byte{final | isText, masked | byte(len(text)), 0, 0, 0, 0}, text...) // a mask of zeros changes nothing
	if _, err := ws.Write(frame); err != nil {
		ws.t.Fatal(err)
	}
	return ws.read()
}

func (ws *webSocket) read() string {
	ws.t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(ws.answers, head[:]); err != nil {
		ws.t.Fatal(err)
	}
	size := int(head[1])
	if size == 126 {
		var long [2]byte
		if _, err := io.ReadFull(ws.answers, long[:]); err != nil {
			ws.t.Fatal(err)
		}
		size = int(binary.BigEndian.Uint16(long[:]))
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(ws.answers, text); err != nil {
		ws.t.Fatal(err)
	}
	return string(text)
}
