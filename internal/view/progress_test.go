package view

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/live"
)

func step(i int, phase live.Phase, left int) live.Event {
	return live.Event{Step: live.Instance, App: "web", Instances: []int{i}, Phase: phase, Left: left}
}

func newProgress(terminal bool, rows int) (*Progress, *bytes.Buffer) {
	out := new(bytes.Buffer)
	return NewProgress(ProgressOptions{Writer: out, Moves: terminal, Size: func() (int, int) { return 30, rows }}), out
}

// On a terminal the block replaces the last one, and what is said stands above it.
func TestProgressOnTerminal(t *testing.T) {
	p, out := newProgress(true, 24)
	p.Tell(step(2, live.PhaseWaiting, -1))
	p.Tell(step(1, live.PhaseDraining, 12))
	p.Say("Note.")
	p.End()
	p.Say("Done.")
	want := "\rweb@2: waiting\x1b[K\n" +
		"\x1b[1A\rweb@1: draining, 12 connectio\x1b[K\n\rweb@2: waiting\x1b[K\n" +
		"\x1b[2A\x1b[JNote.\n\rweb@1: draining, 12 connectio\x1b[K\n\rweb@2: waiting\x1b[K\n" +
		"Done.\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out, want)
	}
}

// A question below the block stays where it is, and the block goes on below it.
func TestProgressAsks(t *testing.T) {
	p, out := newProgress(true, 24)
	p.Tell(step(1, live.PhaseWaiting, -1))
	out.Reset()
	asking, answer, answered := make(chan bool), make(chan bool), make(chan bool)
	go func() { answered <- p.Ask(func() bool { asking <- true; return <-answer }) }()
	<-asking
	p.Tell(step(1, live.PhaseEnding, -1))
	if out.Len() > 0 {
		t.Errorf("wrote %q over the question", out)
	}
	answer <- true
	if !<-answered {
		t.Error("the answer is lost")
	}
	p.Tell(step(1, live.PhaseLaunched, -1))
	if want := "\rweb@1: starting\x1b[K\n"; out.String() != want {
		t.Errorf("after the question %q, want %q", out, want)
	}
}

// Elsewhere each step is a line. What has not happened to the instance is none, nor a change of the
// number of connections.
func TestProgressInLines(t *testing.T) {
	p, out := newProgress(false, 24)
	kept := step(1, live.PhaseWaiting, -1)
	kept.Kept = true
	for _, e := range []live.Event{kept, step(1, live.PhaseDraining, -1), step(1, live.PhaseDraining, 12), step(1, live.PhaseServing, -1)} {
		p.Tell(e)
	}
	if want := "web@1: draining\nweb@1: ready\n"; out.String() != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// A screen that is too small shows the instances that move, and counts the others.
func TestProgressOfMany(t *testing.T) {
	p, _ := newProgress(true, 6)
	for i := range 64 {
		p.steps[i+1] = step(i+1, live.PhaseWaiting, -1)
	}
	p.steps[7], p.steps[8] = step(7, live.PhaseLaunched, -1), step(8, live.PhaseServing, -1)
	if got := fmt.Sprint(strings.Join(p.lines(), "|")); got != "web@7: starting|62 waiting, 1 ready" {
		t.Errorf("got %q", got)
	}
}
