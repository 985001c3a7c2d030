//go:build integration

package integration

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
)

// testMessages sends messages to a program in Go, and from one instance to another, on both paths;
// the channel outlives the balancer.
func testMessages(t *testing.T, s *apps.System) {
	for _, path := range []string{"steer", "handoff"} {
		a := apps.Start(t, s, "mail-"+path, "--messages", "--path="+path)
		a.MustExec(t, "unitgen", "send", a.Name, `{"to": "all"}`)
		for i := 1; i <= a.N; i++ {
			awaitTold(a, i, `{"to":"all"}`)
		}
		a.MustExec(t, "unitgen", "send", a.Name+"@2", "7")
		awaitTold(a, 2, "7")
		ask(a, 1, "/tell?to=3&text=hello")
		awaitTold(a, 3, `{"type":"process:msg","to":3,"data":"hello"}`)
		if told := ask(a, 1, "/told"); told != `{"to":"all"}` {
			t.Errorf("instance 1 was told %s, which was for others", told)
		}
		pid := a.PID(a.Shim())
		a.MustExec(t, "kill", "-s", "KILL", pid)
		a.AwaitNew(a.Shim(), pid)
		a.AwaitUp(a.N)
		ask(a, 3, "/tell?to=0&text=again")
		for i := 1; i < a.N; i++ {
			awaitTold(a, i, `{"type":"process:msg","data":"again"}`)
		}
		before := a.PIDs()
		a.Reload()
		for i := 1; i <= a.N; i++ {
			if a.PID(a.Instance(i)) == before[i] {
				t.Errorf("instance %d is not new", i)
			}
		}
		a.MustExec(t, "unitgen", "send", a.Name, `"new"`)
		for i := 1; i <= a.N; i++ {
			awaitTold(a, i, `"new"`)
		}
	}
	// A program that is no instance may not listen in.
	out := s.MustExec(t, "python3", "-c", `
import socket
c = socket.socket(socket.AF_UNIX)
c.connect("/run/unitgen/mail-steer/channel")
print(c.recv(1000).decode())`)
	if !strings.Contains(out, "only an instance's main process") {
		t.Errorf("a stranger was told %q", out)
	}
}

// ask asks one instance, on a connection of its own. The handoff path gives connections to who has
// the fewest, and on a busy machine learns late which have ended.
func ask(a *apps.App, instance int, path string) string {
	a.T.Helper()
	for end := time.Now().Add(apps.Limit); time.Now().Before(end); {
		for _, h := range a.Hold(2 * a.N) {
			if h.Instance != strconv.Itoa(instance) {
				h.Close()
				continue
			}
			defer h.Close()
			return askOn(a, h, path)
		}
	}
	a.T.Fatalf("no connection reached instance %d", instance)
	return ""
}

func askOn(a *apps.App, h *apps.Held, path string) string {
	a.T.Helper()
	if err := h.Send(path); err != nil {
		a.T.Fatal(err)
	}
	response, err := h.Response()
	if err != nil {
		a.T.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		a.T.Fatalf("%s of instance %s: %s %s, %v", path, h.Instance, response.Status, body, err)
	}
	return strings.TrimSpace(string(body))
}

// awaitTold waits for a message, whose arrival nobody tells.
func awaitTold(a *apps.App, instance int, want string) {
	a.T.Helper()
	var got string
	for end := time.Now().Add(apps.Limit); time.Now().Before(end); {
		if got = ask(a, instance, "/told"); got == want {
			return
		}
	}
	a.T.Fatalf("instance %d was told %s, want %s", instance, got, want)
}
