//go:build integration

package rollout

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testProgress reloads, restarts, stops and starts by unitgen, which says the command, each step of each instance, and why one
// failed. A reload is cancelled from a terminal.
func testProgress(t *testing.T, s *apps.System) {
	a := apps.Start(t, s, "shown", "--soak", "1s", "--env", "APP_VERSION=1")
	at := func(i int, phase string) string { return strings.TrimSuffix(a.Instance(i), ".service") + ": " + phase }
	act := func(status int, want ...string) string {
		t.Helper()
		out, err := s.Exec(t.Context(), "unitgen", want[0], a.Name)
		if err != nil || out.Status != status || out.Stdout != "" {
			t.Fatalf("unitgen %s: %v, status %d, %q, %q", want[0], err, out.Status, out.Stdout, out.Stderr)
		}
		want[0] = "systemctl " + want[0] + " " + a.Name
		lines := strings.Split(out.Stderr, "\n")
		for _, line := range want {
			i := slices.Index(lines, line)
			if i < 0 {
				t.Fatalf("%q is missing, or comes too late, in:\n%s", line, out.Stderr)
			}
			lines = lines[i+1:]
		}
		return out.Stderr
	}
	load := a.Load(rig.LoadOptions{Clients: 4, Rate: 100})
	a.AwaitOK(load, 10)
	pids := a.PIDs()
	act(0, "reload", at(4, "ready"), at(4, "proved: the new code stays up"), at(1, "ready"), at(2, "ready"), at(3, "ready"), at(4, "stopped"))
	if now := a.PIDs(); len(now) != len(pids) || maps.Equal(now, pids) {
		t.Errorf("processes %v, before %v", now, pids)
	}
	a.Lossless(load.Stop())
	shownInRollout(a)
	cancelOnTerminal(a)

	a.Unitgen("--", "/bin/sh", "-c", "echo no such table >&2; exit 3")
	said := act(1, "reload", at(4, "failed"))
	for _, words := range []string{"instances that were not reached keep the old code", "did not get ready", "no such table", "hint: unitgen logs"} {
		if !strings.Contains(said, words) {
			t.Errorf("%q is missing in:\n%s", words, said)
		}
	}
	a.Unitgen("--", apps.Server)
	logs := strings.Join(strings.Fields(a.MustExec(t, "unitgen", "logs", a.Name, "--since=-1h")), " ")
	for _, words := range []string{" shown path is steer", " shown@1 systemd: Started shown@1.service", " shown@4 no such table"} {
		if !strings.Contains(logs, words) {
			t.Errorf("logs lack %q:\n%s", words, logs)
		}
	}
	act(0, "stop", at(1, "stopped"))
	act(1, "reload", "unitgen: shown does not run", "unitgen: hint: unitgen start shown")
	act(0, "start", at(3, "ready"))
	act(0, "restart", at(2, "ready"))
	checkUp(a)
}

// shownInRollout reads list and status while new code is tried.
func shownInRollout(a *apps.App) {
	t := a.T
	t.Helper()
	a.Unitgen("--soak=5s") // long enough for two commands
	defer a.Unitgen("--soak=1s")
	r := startReload(a, "trying the new code")
	type rollout struct {
		Text string
	}
	type app struct {
		App, State string
		Rollout    *rollout
	}
	var all []app
	var status struct {
		Rollout   *rollout
		Instances []struct{ Instance, Code string }
	}
	list, one := a.MustExec(t, "unitgen", "list", "--json=short"), a.MustExec(t, "unitgen", "status", "--json=short", a.Name)
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(json.Unmarshal([]byte(list), &all), json.Unmarshal([]byte(one), &status)); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(l app) bool { return l.App == a.Name })
	if i < 0 || all[i].State != "reloading" || all[i].Rollout == nil || all[i].Rollout.Text != "trying the new code" {
		t.Errorf("list: %s", list)
	}
	if status.Rollout == nil || len(status.Instances) < a.N || status.Instances[0].Code != "old" {
		t.Errorf("status: %s", one)
	}
	for _, in := range status.Instances[a.N:] {
		if in.Code != "new" {
			t.Errorf("%s runs the %s code", in.Instance, in.Code)
		}
	}
}

// cancelOnTerminal types Ctrl-C into a terminal in which a reload runs, and yes.
func cancelOnTerminal(a *apps.App) {
	t := a.T
	t.Helper()
	c, err := a.Command(t.Context(), "env", "TERM=xterm", "script", "-qefc", "unitgen reload "+a.Name, "/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	screen := bufio.NewReader(out)
	a.AwaitStatus("rollout 1/3")
	said := ""
	typed := func(keys, words string) {
		io.WriteString(in, keys)
		for !strings.Contains(said, words) {
			b, err := screen.ReadByte()
			if err != nil {
				t.Fatalf("%q is not on the screen: %v, %q", words, err, said)
			}
			said += string(b)
		}
	}
	typed("\x03", "[y/N]")
	typed("y\r", "the reload was cancelled")
	in.Close()
	io.Copy(io.Discard, screen)
	if err := c.Wait(); err == nil {
		t.Error("a reload that was cancelled has succeeded")
	}
	if !strings.Contains(said, "waiting") || !strings.Contains(said, "\x1b[") {
		t.Errorf("no lines that change in place: %q", said)
	}
	a.MustWait(t, apps.Limit, a.Instance(a.N+1), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	checkUp(a)
	healthyReload(a)
}
