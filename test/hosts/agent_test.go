//go:build integration

package hosts

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// checked is an app with an agent.
type checked struct {
	*apps.App
	agent string // its address
}

func startChecked(t *testing.T, s *apps.System, name string, words ...string) *checked {
	t.Helper()
	agent := fmt.Sprintf("127.0.0.1:%d", s.NewPort())
	return &checked{apps.Start(t, s, name, append([]string{"--agent=" + agent}, words...)...), agent}
}

// says is what the agent answers to what is sent.
func (c *checked) says(sent string) (string, error) {
	ctx, cancel := context.WithTimeout(c.T.Context(), apps.Limit)
	defer cancel()
	conn, err := c.DialContext(ctx, "tcp", c.agent)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if _, err := io.WriteString(conn, sent); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// await asks until the agent answers as wanted: it may be behind by the time that it keeps an
// answer.
func (c *checked) await(want string) {
	c.T.Helper()
	var last string
	for until := time.Now().Add(apps.Limit); time.Now().Before(until) && c.T.Context().Err() == nil; {
		last, _ = c.says("agent\n")
		if last == want {
			return
		}
	}
	c.T.Fatalf("the agent says %q, want %q", last, want)
}

// health is the status and the body of the agent's HTTP endpoint.
func (c *checked) health() (status, body string) {
	c.T.Helper()
	answer, err := c.says("GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
	if err != nil {
		c.T.Fatal(err)
	}
	head, body, _ := strings.Cut(answer, "\r\n\r\n")
	status, _, _ = strings.Cut(strings.TrimPrefix(head, "HTTP/1.1 "), "\r\n")
	return status, strings.TrimSpace(body)
}

func testAgent(t *testing.T, s *apps.System) {
	c := startChecked(t, s, "agent", "--weights=2,1,1")
	if state := c.MustShow(t, "agent-agent.service", "ActiveState"); state != "inactive" {
		t.Errorf("the agent is %s before anybody has asked", state)
	}
	c.await("ready up 100%\n")
	if got, err := c.says(""); err != nil || got != "ready up 100%\n" { // HAProxy without agent-send
		t.Errorf("a client that says nothing gets %q, %v", got, err)
	}
	status, body := c.health()
	if want := `{"app":"agent","state":"up","weight":100,"instances":3,"up":3}`; status != "200 OK" || body != want {
		t.Errorf("health is %s %s, want 200 OK %s", status, body, want)
	}

	// A balancer that is killed takes its host out of service for nobody.
	pid := c.PID(c.Shim())
	c.Signal(c.Shim(), "SIGKILL")
	for back := false; !back; {
		if got, err := c.says("agent\n"); err != nil || got != "ready up 100%\n" {
			t.Fatalf("while the balancer is restarted the agent says %q, %v", got, err)
		}
		now := c.MustShow(t, c.Shim(), "MainPID")
		back = now != "0" && now != pid
	}
	c.AwaitUp(3)
	c.MustWait(t, apps.Limit, c.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "active" })

	// What it says then is the new balancer's word.
	c.MustSystemctl("stop", c.Instance(1))
	c.await("ready up 50%\n")
	c.MustSystemctl("start", c.Instance(1))
	c.await("ready up 100%\n")

	// It has no capability, and no network of its own.
	agent := c.MustShow(t, "agent-agent.service", "MainPID")
	if caps := c.MustExec(t, "grep", "-E", "^Cap(Eff|Bnd)", "/proc/"+agent+"/status"); strings.Trim(caps, "CapEfBnd:\t0\n") != "" {
		t.Errorf("capabilities of the agent:\n%s", caps)
	}
	if links := c.MustExec(t, "nsenter", "--net", "--target", agent, "ip", "-o", "link"); strings.Count(links, "\n") != 1 {
		t.Errorf("network of the agent:\n%s", links)
	}

	testAgentStops(t, c)
}

// testAgentStops stops the app, starts it and takes the agent away.
func testAgentStops(t *testing.T, c *checked) {
	held := c.Hold(1)[0]
	c.MustSystemctl("stop", "--no-block", c.Shim())
	c.await("maint\n")
	held.Close()
	c.MustWait(t, apps.Limit, "agent-agent.socket", func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	c.MustWait(t, apps.Limit, c.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	c.MustSystemctl("start", c.Shim())
	c.AwaitUp(3)
	c.await("ready up 100%\n")
	c.Unitgen("--agent=")
	if _, err := c.says(""); err == nil {
		t.Error("the agent answers after it was taken away")
	}
	if left := c.MustExec(t, "sh", "-c", "ls /etc/systemd/system /etc/systemd/system/agent.service.wants | grep agent-agent || true"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// asks asks for the state of an app over and over, at its control socket and by the relay of the
// metrics, until the file of its second argument is there. It makes that of its third one with the
// first answer.
const asks = `
import json, os, socket, sys, time
name, end, begun = sys.argv[1:]
while not os.path.exists(end):
    for path, parameters in ("/run/unitgen/%s/control" % name, {}), ("/run/unitgen/status", {"app": name}):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(0.2)
            try:
                s.connect(path)
                s.sendall(json.dumps({"method": "io.unitgen.Shim.Status", "parameters": parameters}).encode() + b"\0")
                if b"instances" in s.recv(65536):
                    open(begun, "w").close()
            except OSError:
                time.sleep(0.001)
`

// ask has everybody who may ask for the state of the app do so, without a pause, until stop, which
// returns when all have ended.
func (c *checked) ask() (stop func()) {
	c.T.Helper()
	const end, begun = "/run/asked.end", "/run/asked.begun"
	answers := make(chan rig.Output, 1)
	go func() {
		out, _ := c.Exec(c.T.Context(), "timeout", "60", "python3", "/srv/asks.py", c.Name, end, begun)
		answers <- out
	}()
	// The interpreter may take longer to start than a stop does.
	c.MustExec(c.T, "timeout", "60", "sh", "-c", "until [ -e "+begun+" ]; do sleep 0.01; done")
	stopped := make(chan struct{})
	var agent sync.WaitGroup
	for range 4 {
		agent.Go(func() {
			for {
				select {
				case <-stopped:
					return
				default:
					_, _ = c.says("agent\n") // nobody answers after the stop
				}
			}
		})
	}
	return func() {
		c.T.Helper()
		close(stopped)
		agent.Wait()
		c.MustWriteFile(c.T, end, "", 0o600)
		if out := <-answers; out.Status != 0 {
			c.T.Errorf("who asked: %+v", out)
		}
		c.MustExec(c.T, "rm", end, begun)
	}
}

// An app that is asked how it is, at each moment of a stop, stays stopped: a balancer that ended is
// not started by what waits at its control socket.
func testAskedInAStop(t *testing.T, s *apps.System) {
	c := startChecked(t, s, "asked", "--instances=1")
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"unitgen-status.socket", "unitgen-status.service"} {
		s.MustCopyIn(t, filepath.Join(root, "packaging/systemd", name), "/usr/lib/systemd/system/"+name, 0o644)
	}
	s.MustWriteFile(t, "/srv/asks.py", asks, 0o755)
	s.MustExec(t, "systemctl", "daemon-reload")
	s.MustExec(t, "systemctl", "start", "unitgen-status.socket")
	ended := func(p rig.Properties) bool { return p["ActiveState"] == "inactive" || p["ActiveState"] == "failed" }
	for _, stop := range []string{
		"systemctl stop asked",
		"systemctl kill --signal=KILL --kill-whom=main asked.service; systemctl stop asked",
		"systemctl stop asked & systemctl kill --signal=KILL --kill-whom=main asked.service; wait $!",
	} {
		end := c.ask()
		c.await("ready up 100%\n")
		if out, err := s.Exec(t.Context(), "sh", "-c", stop); err != nil || out.Status != 0 {
			t.Errorf("%s: %+v, %v", stop, out, err)
		}
		for _, unit := range []string{"asked-control.socket", "asked.socket", c.Instance(1)} { // the first one ends behind the balancer
			s.MustWait(t, apps.Limit, unit, ended)
		}
		if state := s.MustShow(t, c.Shim(), "ActiveState"); state != "inactive" && state != "failed" {
			t.Errorf("after %q the balancer is %s", stop, state)
		}
		end()
		c.MustSystemctl("start", "asked.socket", c.Shim())
		c.AwaitUp(1)
	}
}

// Who may ask at a path, its group says.
func testAgentPath(t *testing.T, s *apps.System) {
	a := apps.New(t, s, "path", "--agent=/run/path-health.sock")
	a.DropIn("path-agent.socket", "[Socket]\nSocketGroup=www-data\n")
	a.MustSystemctl("enable", "--now", "path.socket", a.Shim())
	a.AwaitUp(3)
	if got := a.MustExec(t, "stat", "-c", "%U:%G %a", "/run/path-health.sock"); got != "root:www-data 660\n" {
		t.Errorf("the path is %s", got)
	}
	ask := []string{"curl", "-sS", "--unix-socket", "/run/path-health.sock", "http://a/"}
	if got := a.MustExec(t, append([]string{"setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups"}, ask...)...); !strings.Contains(got, `"up":3`) {
		t.Errorf("the group is told %s", got)
	}
	if out, err := a.Exec(t.Context(), append([]string{"setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"}, ask...)...); err != nil || out.Status == 0 {
		t.Errorf("anybody is told %+v, %v", out, err)
	}
}

// An address of the agent that another program has, or a file: one line, and nothing is written.
func testAgentTaken(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "holder", "--instances=1")
	s.MustWriteFile(t, "/srv/precious", "data", 0o600)
	for _, c := range []struct{ agent, want string }{
		{fmt.Sprint(a.Port), fmt.Sprintf("unitgen: --agent=%d is in use by another program", a.Port)},
		{"/srv/precious", "unitgen: --agent=/srv/precious exists and is no socket: systemd would delete it"},
	} {
		out, err := s.Exec(t.Context(), "unitgen", "taken", "--listen=3990", "--agent="+c.agent, "--now", "--", apps.Server)
		if err != nil || out.Status != 2 || !strings.Contains("\n"+out.Stderr, "\n"+c.want) {
			t.Errorf("--agent=%s: %+v, %v", c.agent, out, err)
		}
	}
	if left := s.MustExec(t, "sh", "-c", "cat /srv/precious; ls /etc/systemd/system | grep taken || true"); left != "data" {
		t.Errorf("left behind: %s", left)
	}
}
