//go:build integration

package node

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// What passes through the balancer leaves nothing in it, and it has a limit.
func testMemory(t *testing.T, s *system, node string) {
	const warm, more, mayGrow = 3000, 4000, 2 << 20 // bytes, which is 500 for each connection
	a := newApp(t, s, node, "memory")
	a.start("--path=handoff", "--", node, "plain.js", strconv.Itoa(a.port))
	put := func(n int) int {
		l := a.load(rig.LoadOptions{Requests: n, Clients: 8})
		l.Wait()
		a.lossless(l)
		return a.anonymous(a.MustShow(t, a.shim(), "MainPID"))
	}
	before := put(warm)
	after := put(more)
	t.Logf("the balancer has %d kB after %d connections, and %d kB after %d more", before>>10, warm, after>>10, more)
	if after-before > mayGrow {
		t.Errorf("the balancer has grown by %d bytes in %d connections", after-before, more)
	}
	if most := a.MustShow(t, a.shim(), "MemoryMax"); most != strconv.Itoa(128<<20) {
		t.Errorf("its limit is %s", most)
	}
}

// anonymous is the memory of a process in bytes, without what is read from files.
func (a *app) anonymous(pid string) int {
	a.t.Helper()
	text := a.MustExec(a.t, "cat", "/proc/"+pid+"/status")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kB, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				a.t.Fatal(err)
			}
			return kB << 10
		}
	}
	a.t.Fatalf("no RssAnon in %s", text)
	return 0
}

// A program that writes without end fills no disk and holds up nobody: there are no files of its
// own, and what its unit's limit exceeds journald drops.
func testFlood(t *testing.T, s *system, node string) {
	const lines, burst = 20_000, 50
	s.MustWriteFile(t, "/srv/flood.js", `
require('http').createServer((request, response) => {
  for (let i = 0; request.url === '/flood' && i < `+strconv.Itoa(lines)+`; i++) console.log('flood ' + i);
  response.end('pid=' + process.pid + '\n');
}).listen(process.env.PORT);
`, 0o644)
	a := newApp(t, s, node, "flood")
	a.start("-p", "LogRateLimitIntervalSec=1h", "-p", "LogRateLimitBurst="+strconv.Itoa(burst), "--", node, "flood.js")
	l := a.load(rig.LoadOptions{Rate: 50})
	for range 4 {
		if status, err := a.request("/flood", "close").answer(); err != nil || status != http.StatusOK {
			t.Errorf("the request was answered with %d, %v", status, err)
		}
	}
	a.awaitOK(50, l)
	a.lossless(l)
	journal, err := s.Journal(t.Context(), a.name+"@*")
	if err != nil {
		t.Fatal(err)
	}
	// journald allows up to ten times as many where much of the disk is free (journald.conf(5),
	// RateLimitBurst=).
	if n := strings.Count(journal, "flood "); n == 0 || n > 4*10*burst {
		t.Errorf("the journal has %d lines of it, want some, and %d at most", n, 4*10*burst)
	}
}
