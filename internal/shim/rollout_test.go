package shim

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/control"
)

// A rollout that goes away without a word was killed, and the shim ends; one that has said that it
// ends was not, and neither was another one that it met.
func TestRolloutThatIsKilledEndsTheShim(t *testing.T) {
	for _, said := range []bool{true, false} {
		b := newBench(t, Options{})
		request := func(pid string) *control.Request {
			return &control.Request{Parameters: json.RawMessage(`{"pid":` + pid + `}`)}
		}
		ctx, killed := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() { // ends with ctx
			_, err := b.rolling(ctx, request("7"))
			gone <- err
		}()
		b.took()
		pid := "8"
		if said {
			pid = "7"
		}
		told := make(chan error, 1)
		go func() { told <- b.rolled(t.Context(), request(pid)) }()
		b.took()
		if err := <-told; err != nil {
			t.Fatal(err)
		}
		killed()
		b.took()
		<-gone
		if b.cutOff == said {
			t.Errorf("a rollout that said that it ends, %v: cut off %v", said, b.cutOff)
		}
	}
}

// PID 1 has the line of a rollout before the rollout goes on or ends, however many lines it had before.
func TestNoteOfARolloutIsToldAtOnce(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	for b.statusPace.Take(b.started) { // as by instances that start and end
	}
	for _, text := range []string{"rollout 1/2", ""} {
		note, err := json.Marshal(control.Note{Text: text})
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan error, 1)
		go func() { answered <- b.takeNote(t.Context(), &control.Request{Parameters: note}) }()
		b.took()
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
		if told := strings.HasPrefix(b.status, "rollout"); told != (text != "") {
			t.Errorf("after %q PID 1 has %q", text, b.status)
		}
	}
}
