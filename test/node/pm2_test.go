//go:build integration

package node

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// heard waits until each of the instances has heard what has words, and no other one has.
func (a *app) heard(words string, instances ...int) {
	a.t.Helper()
	for _, i := range instances {
		a.answers(i, words)
	}
	for range 8 {
		body := a.get(a.t.Context())
		for i := range a.n {
			if strings.Contains(body, fmt.Sprintf("number=%d ", i)) && strings.Contains(body, words) && !slices.Contains(instances, i+1) {
				a.t.Errorf("instance %d heard %s: %s", i+1, words, body)
			}
		}
	}
}

// answers waits until an instance answers with words.
func (a *app) answers(instance int, words string) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), limit)
	defer cancel()
	for {
		body := a.get(ctx)                                                                                  // every fourth time from the same instance
		if strings.Contains(body, fmt.Sprintf("number=%d ", instance-1)) && strings.Contains(body, words) { // PM2 counts from 0
			return
		}
	}
}

// get is the answer to one request.
func (a *app) get(ctx context.Context) string {
	a.t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: a.DialContext, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", a.port), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(body)
}

// What programs made for PM2 say and hear: readiness, messages from anybody and between instances,
// "shutdown".
func testMessages(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "messages")
	a.n = 4
	a.start("--ready=message", "--shutdown-message", "--", node, "pm2.js")
	send := func(status int, to, message string) string {
		t.Helper()
		out, err := s.Exec(t.Context(), "unitgen", "send", a.name+to, message)
		if err != nil || out.Status != status {
			t.Fatalf("unitgen send %s%s = %+v, %v, want status %d", a.name, to, out, err, status)
		}
		return out.Stderr
	}
	send(0, "", `{"topic":"all of you"}`)
	a.heard("all of you", 1, 2, 3, 4)
	send(0, "@2", `"you alone"`)
	a.heard("you alone", 2)
	send(0, "@3", `{"tell":{"type":"process:msg","topic":"from three","data":{}}}`)
	a.heard("from three", 1, 2, 4)
	send(0, "@3", `{"tell":{"type":"process:msg","topic":"three to one","to":1}}`)
	a.heard("three to one", 1)
	// Faster than anybody can read them: all come, and in order.
	send(0, "", `{"burst":500}`)
	for i, from := range []string{`"1":500,"2":500,"3":500`, `"0":500,"2":500,"3":500`, `"0":500,"1":500,"3":500`, `"0":500,"1":500,"2":500`} {
		a.answers(i+1, "bursts={"+from+"}")
	}
	send(1, "@9", `1`)
	send(2, "", `{"cmd":"NODE_CLUSTER","act":"disconnect"}`)

	// One that does not read loses messages and nothing else; the sender is told, and waits for
	// nobody.
	pid := a.MustShow(t, a.instance(4), "MainPID")
	s.MustExec(t, "kill", "-STOP", pid)
	noise := fmt.Sprintf(`{"noise":%q}`, strings.Repeat("x", 60<<10))
	told := ""
	for n := 0; told == ""; n++ {
		if n > 100 {
			t.Fatal("nothing was dropped")
		}
		out, err := s.Exec(t.Context(), "unitgen", "send", a.name+"@4", noise)
		if err != nil {
			t.Fatal(err)
		}
		told = out.Stderr
	}
	if want := fmt.Sprintf("unitgen: %s@4 does not read its messages, so it does not get this one\n", a.name); told != want {
		t.Errorf("the sender is told %q, want %q", told, want)
	}
	s.MustExec(t, "kill", "-CONT", pid)
	a.answers(4, "all of you") // it serves again, in the same process
	if after := a.MustShow(t, a.instance(4), "MainPID"); after != pid {
		t.Errorf("instance 4 was process %s and is %s", pid, after)
	}

	// A crash of the balancer takes neither the channels nor what was said on them.
	shim := a.MustShow(t, a.shim(), "MainPID")
	s.MustExec(t, "kill", "-9", shim)
	a.MustWait(t, limit, a.shim(), func(p rig.Properties) bool {
		return p["MainPID"] != shim && p["ActiveState"] == "active" && strings.Contains(p["StatusText"], a.allUp())
	})
	send(0, "", `{"topic":"by the next balancer"}`)
	a.heard("by the next balancer", 1, 2, 3, 4)

	testShutdown(t, a)
}

// testShutdown restarts an instance while a request is on its way: it is answered first, then the
// program is told, and it has the time to end by itself.
func testShutdown(t *testing.T, a *app) {
	var slow []*slowRequest
	for range a.n {
		slow = append(slow, a.request("/slow", "close"))
	}
	for i := range a.n {
		a.answers(i+1, "slow=1")
	}
	pid := a.MustShow(t, a.instance(1), "MainPID")
	a.MustExec(t, "systemctl", "restart", "--no-block", a.instance(1))
	a.MustWait(t, limit, a.instance(1), func(p rig.Properties) bool { return p["ActiveState"] == "deactivating" })
	a.MustExec(t, "unitgen", "send", a.name, `"answer"`)
	for i, r := range slow {
		if status, err := r.answer(); err != nil || status != http.StatusOK {
			t.Errorf("request %d was answered with %d, %v", i, status, err)
		}
	}
	a.MustWait(t, limit, a.instance(1), func(p rig.Properties) bool { return p["ActiveState"] == "active" && p["MainPID"] != pid })
	journal, err := a.Journal(t.Context(), a.instance(1))
	if err != nil || !strings.Contains(journal, "the database is closed") {
		t.Errorf("the program was not let end by itself: %v\n%s", err, journal)
	}
}

// A program that never says that it is ready fails its start, with the reason.
func testNeverReady(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "silent")
	out, err := s.Exec(t.Context(), "unitgen", a.name, "--listen="+strconv.Itoa(a.port), "--ready=message", "--start-timeout=10s", "--now",
		"--working-directory=/srv", "--", node, "pm2.js", "silent")
	if err != nil || out.Status == 0 {
		t.Errorf("start of a program that never says that it is ready = %+v, %v", out, err)
	}
	journal, err := s.Journal(t.Context(), a.name+"*")
	if err != nil || !strings.Contains(journal, "the program listens, but has not called process.send('ready')") {
		t.Errorf("the journal does not tell why: %v\n%s", err, journal)
	}
}
