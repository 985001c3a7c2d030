//go:build integration

package rollout

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// testProgress reloads, restarts, stops and starts by unitgen, which says the command, each step of
// each instance, and why one failed. A reload is cancelled from a terminal.
func testProgress(t *testing.T, s *apps.System) {
	a := start(t, s, "shown", "--soak", "1s", "--env", "APP_VERSION=1")
	up := func(n int) string {
		return fmt.Sprintf("%s: %d/%d instances up at port %d (steer)", a.Name, n, a.N, a.Port)
	}
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
	act(0, "reload", at(a.N+1, "ready"), at(a.N+1, "proved: the new code stays up"), at(1, "ready"), at(a.N, "ready"), at(a.N+1, "stopped"), up(a.N))
	if now := a.PIDs(); len(now) != len(pids) || maps.Equal(now, pids) {
		t.Errorf("processes %v, before %v", now, pids)
	}
	a.Lossless(load.Stop())
	shownInRollout(a)
	cancelOnTerminal(a)

	a.Unitgen("--", "/bin/sh", "-c", "echo no such table >&2; exit 3")
	said := act(1, "reload", at(a.N+1, "failed"))
	for _, words := range []string{"instances that were not reached keep the old code", "did not get ready", "no such table", "hint: unitgen logs"} {
		if !strings.Contains(said, words) {
			t.Errorf("%q is missing in:\n%s", words, said)
		}
	}
	a.Unitgen("--", apps.Server)
	logs := strings.Join(strings.Fields(a.MustExec(t, "unitgen", "logs", a.Name, "--since=-1h")), " ")
	for _, words := range []string{" shown path is steer", " shown@1 systemd: Started shown@1.service", fmt.Sprintf(" shown@%d no such table", a.N+1)} {
		if !strings.Contains(logs, words) {
			t.Errorf("logs lack %q:\n%s", words, logs)
		}
	}
	act(0, "stop", at(1, "stopped"))
	act(1, "reload", "unitgen: shown does not run", "unitgen: hint: unitgen start shown")
	act(0, "start", at(a.N, "ready"), up(a.N))
	if said, want := act(0, "start", up(a.N)), "systemctl start "+a.Name+"\n"+up(a.N)+"\n"; said != want {
		t.Errorf("start of an app that runs says %q, want %q", said, want)
	}
	act(0, "restart", at(2, "ready"), up(a.N))
	checkUp(a)
	a.Unitgen("--", "/bin/sh", "-c", "[ $INSTANCE = 1 ] || exec "+apps.Server+"; echo no such table >&2; exit 3")
	said = act(1, "restart", at(1, "failed"), "unitgen: "+up(a.N-1))
	if want := `shown@1 did not get ready: the program ended with exit status 3; it said "no such table"`; !strings.Contains(said, want) {
		t.Errorf("restart of an app that is partly broken says %q, want %q in it", said, want)
	}
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
	a.Unitgen(slowly) // the reload must last until it is cancelled
	defer a.Unitgen("--property=")
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
	a.AwaitStatus(inTheMiddle(a))
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

// testInterrupted ends commands by SIGINT while instances drain or start. They say what goes on,
// and systemd finishes it.
func testInterrupted(t *testing.T, s *apps.System) {
	a := start(t, s, "ended", "--instances=2")
	name := func(i int, phase string) string {
		return strings.TrimSuffix(a.Instance(i), ".service") + ": " + phase + "\n"
	}
	out, err := s.Exec(t.Context(), "unitgen", "scale", a.Name, "4")
	if err != nil || out.Status != 0 || !strings.Contains(out.Stderr, name(3, "ready")) || !strings.Contains(out.Stderr, name(4, "ready")) {
		t.Fatalf("scale to 4: %+v, %v", out, err)
	}
	a.AwaitUp(4)

	hangUp := hang(a, 4)
	said := endAt(a, name(4, "draining"), "scale", a.Name, "3")
	if want := "unitgen: interrupted: systemd goes on to stop ended@4 when it has drained\nunitgen: hint: unitgen status ended\n"; !strings.HasSuffix(said, want) {
		t.Errorf("a scale that is ended says\n%s\nwant\n%s", said, want)
	}
	a.MustWait(t, apps.Limit, a.Instance(4), func(p rig.Properties) bool { return p["ActiveState"] == "deactivating" })
	hangUp()
	for _, unit := range []string{a.Instance(4), a.Socket(4)} {
		a.MustWait(t, apps.Limit, unit, func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	}
	a.N = 3
	a.AwaitUp(3)

	hangUp = hang(a, 3)
	said = endAt(a, name(1, "draining"), "stop", a.Name)
	if want := "unitgen: interrupted: systemd goes on to stop ended when its instances have drained\nunitgen: hint: unitgen status ended\n"; !strings.HasSuffix(said, want) {
		t.Errorf("a stop that is ended says\n%s\nwant\n%s", said, want)
	}
	hangUp()
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" && p["Result"] == "success" })
	a.MustWait(t, apps.Limit, a.Name+".socket", func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
	if out, err := s.Exec(t.Context(), "unitgen", a.Name, "--now"); err != nil || out.Status != 0 || !strings.Contains(out.Stderr, name(1, "ready")) {
		t.Fatalf("start: %+v, %v", out, err)
	}

	hangUp = hang(a, 3)
	said = endAt(a, name(1, "draining"), "remove", a.Name)
	if want := "unitgen: interrupted: systemd goes on to stop ended when its instances have drained, and its files are still there\nunitgen: hint: unitgen remove ended\n"; !strings.HasSuffix(said, want) {
		t.Errorf("a remove that is ended says\n%s\nwant\n%s", said, want)
	}
	hangUp()
	a.MustWait(t, apps.Limit, a.Shim(), func(p rig.Properties) bool { return p["ActiveState"] == "inactive" })
}

// hang begins n requests, one at each instance, that last until their clients hang up. They are the
// first of their connections: the kernel's clock cannot tell a later one from an answer that went
// out just before it.
func hang(a *apps.App, n int) (hangUp func()) {
	a.T.Helper()
	conns := a.Open(n)
	send(a, conns, "/slow?ms=600000")
	return func() {
		for _, h := range conns {
			h.Close()
		}
	}
}

// endAt runs unitgen, sends it SIGINT when it has said words, and returns all that it said.
func endAt(a *apps.App, words string, args ...string) string {
	t := a.T
	t.Helper()
	// The shell tells its process, which becomes unitgen.
	c, err := a.Command(t.Context(), append([]string{"sh", "-c", `echo $$ >/run/ended.pid; exec unitgen "$@" 2>&1`, "sh"}, args...)...)
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
	said := ""
	screen := bufio.NewReader(out)
	for !strings.Contains(said, words) {
		line, err := screen.ReadString('\n')
		if said += line; err != nil {
			t.Fatalf("unitgen %q does not say %q: %q", args, words, said)
		}
	}
	a.MustExec(t, "sh", "-c", "kill -INT $(cat /run/ended.pid)")
	rest, _ := io.ReadAll(screen)
	if err := c.Wait(); err == nil {
		t.Errorf("unitgen %q has succeeded, though it was ended", args)
	}
	return said + string(rest)
}
