//go:build integration

package rollout

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/unitgen/unitgen/test/apps"
)

// testTop watches an app in a terminal, changes it by keys, follows its journal, and leaves the
// terminal as it was.
func testTop(t *testing.T, s *apps.System) {
	a := start(t, s, "watched", "--instances=3", "--soak", "1s")
	screen := apps.NewScreen(t, s.Container, 80, 24, "bash", "--norc", "-i")
	screen.Type("before=$(stty -g); unitgen top "+a.Name+`; echo "status $?"; [ "$before" = "$(stty -g)" ] && echo terminal as "before"`, "Enter")
	screen.Await("> watched", "active", "3/3 instances up", "0 connections", "q:quit")
	open := a.Open(2)
	screen.Await("2 connections")
	for _, h := range open {
		h.Close()
	}
	screen.Await("0 connections")
	screen.Type("Enter")
	screen.Await("@1", "@2", "@3")

	screen.Resize(50, 8)
	small := screen.Await("r:reload R:restart +/-:scale l:logs ?:help q:quit")
	for line := range strings.Lines(small) {
		if utf8.RuneCountInString(strings.TrimRight(line, "\n")) > 50 {
			t.Errorf("a line is too long: %q", line)
		}
	}
	screen.Resize(80, 24)
	screen.Await("Enter:open", "CONNS/S")

	screen.Type("+")
	screen.Await("scale watched +1: done", "4/4 instances up")
	a.AwaitUp(4)
	screen.Type("-")
	screen.Await("Stop one instance of watched? [y/N]")
	screen.Type("n", "-", "y")
	screen.Await("scale watched -1: done", "3/3 instances up")
	a.AwaitUp(3)

	pids := a.PIDs()
	screen.Type("Down", "R")
	screen.Await("Restart watched@1? [y/N]")
	screen.Type("y")
	screen.Await("restart watched@1: done")
	if now := a.PIDs(); now[1] == pids[1] || now[2] != pids[2] || now[3] != pids[3] {
		t.Errorf("processes %v, before %v", now, pids)
	}
	pids = a.PIDs()
	screen.Type("r", "y")
	screen.Await("reload watched: done")
	for i, pid := range a.PIDs() {
		if pid == pids[i] {
			t.Errorf("instance %d was not reloaded", i)
		}
	}

	screen.Type("Up", "l")
	screen.Await("Ctrl-C goes back to unitgen top.", "rollout is complete")
	screen.Type("C-c")
	screen.Await("> watched", "3/3 instances up")

	a.Unitgen("--", "/bin/sh", "-c", "echo no such table >&2; exit 3")
	screen.Type("r", "y")
	screen.Await("did not get ready", "no such table")
	screen.Type("q")
	screen.Await("status 0", "terminal as before")
	if got := screen.Mode("cursor_flag", "alternate_on"); got != "1 0" {
		t.Errorf("cursor and alternate screen: %s", got)
	}

	stranger := apps.NewScreen(t, s.Container, 80, 24, "runuser", "-u", "nobody", "--", "unitgen", "top", a.Name)
	stranger.Await("> watched", "connections: only root may ask")
	stranger.Type("R", "y")
	said := stranger.Await("restart watched: ")
	if strings.Contains(said, "done") {
		t.Errorf("nobody may restart it:\n%s", said)
	}
	stranger.Type("q")
}
