//go:build integration

package node

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// An instance that has no descriptor left cannot receive the connections that it is given: others
// get them, and it gets its share again when it has some.
func testOutOfFilesHanded(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "handed-files")
	a.start("--path=handoff", "--strategy=round-robin", "-p", "LimitNOFILE=100", "--", node, "files.js")
	sick := a.request("/take?5000", "close")
	a.awaitLog("out of files: EMFILE")
	l := a.load(rig.LoadOptions{Requests: 40, Clients: 1})
	l.Wait()
	a.lossless(l)
	a.awaitLog("program could not receive a connection, another gets it")
	if status, err := sick.answer(); err != nil || status != http.StatusOK {
		t.Errorf("its own request was answered with %d, %v", status, err)
	}
	a.evenlyBy(1)
	for i := range a.n {
		if n := a.MustShow(t, a.instance(i+1), "NRestarts"); n != "0" {
			t.Errorf("instance %d was restarted %s times", i+1, n)
		}
	}
}

// A server with a limit of its own refuses what is more: it goes to another instance, and waits
// where all are full.
func testFull(t *testing.T, s *system, node string) {
	const most = 2
	s.MustWriteFile(t, "/srv/full.js", fmt.Sprintf(`
const server = require('http').createServer((request, response) => response.end('pid=' + process.pid + '\\n'));
server.maxConnections = %d;
server.keepAliveTimeout = 600000;
server.listen(process.env.PORT);
`, most), 0o644)
	a := newApp(t, s, node, "full")
	a.start("--path=handoff", "--", node, "full.js")
	var held []*slowRequest
	for range a.n * most {
		r := a.request("/", "keep-alive")
		if status, err := r.answer(); err != nil || status != http.StatusOK {
			t.Fatalf("connection %d was answered with %d, %v", len(held)+1, status, err)
		}
		held = append(held, r)
	}
	late := a.request("/", "keep-alive")
	answered := make(chan error, 1)
	go func() {
		status, err := late.answer()
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		answered <- err
	}()
	// It is offered to all of them, time and again.
	a.awaitGiven(a.n*most + 2*a.n)
	select {
	case err := <-answered:
		t.Errorf("connection %d was answered (%v) where %d are the limit", a.n*most+1, err, a.n*most)
	default:
	}
	held[0].Close()
	if err := <-answered; err != nil {
		t.Errorf("the connection that waited: %v", err)
	}
}

// awaitGiven waits until the balancer has given so many connections, those included that were
// refused.
func (a *app) awaitGiven(want int) {
	a.t.Helper()
	given := 0
	for end := time.Now().Add(limit); time.Now().Before(end); given = 0 {
		out := a.MustExec(a.t, "unitgen", "status", "--json=short", a.name)
		for _, match := range regexp.MustCompile(`"steered":(\d+)`).FindAllStringSubmatch(out, -1) {
			n, err := strconv.Atoi(match[1])
			if err != nil {
				a.t.Fatal(err)
			}
			given += n
		}
		if given >= want {
			return
		}
	}
	a.t.Fatalf("fewer than %d connections were given", want)
}

// awaitLog waits until the journal of the app has the words.
func (a *app) awaitLog(words string) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), limit)
	defer cancel()
	for {
		text, err := a.Journal(ctx, a.name+"*")
		if err != nil {
			a.t.Fatalf("wait for %q in the journal: %v", words, err)
		}
		if strings.Contains(text, words) {
			return
		}
	}
}
