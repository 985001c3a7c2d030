package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/control"
)

// sendTo calls method Send while the bench plays the shim's loop.
func (b *bench) sendTo(parameters string) (control.Sent, error) {
	b.t.Helper()
	type result struct {
		answer any
		err    error
	}
	done := make(chan result, 1)
	go func() {
		answer, err := b.channels.Send(b.t.Context(), &control.Request{Method: "Send", Parameters: json.RawMessage(parameters)})
		done <- result{answer, err}
	}()
	for {
		select {
		case request := <-b.requests:
			request()
		case r := <-done:
			sent, _ := r.answer.(control.Sent)
			return sent, r.err
		case <-time.After(20 * time.Second):
			b.t.Fatal("method Send does not answer")
		}
	}
}

func TestMessageForOneOrAll(t *testing.T) {
	b := newBench(t, Options{})
	b.up(3) // no Node process
	if _, err := b.sendTo(`{"message":1}`); err == nil || err.Error() != "no instance runs a program that takes messages" {
		t.Errorf("to nobody: %v", err)
	}
	one, _ := b.nodeUp(1)
	two, _ := b.nodeUp(2)
	if sent, err := b.sendTo(`{"message":{"to":"all"}}`); err != nil || !slices.Equal(sent.Instances, []int{1, 2}) {
		t.Errorf("sent to %+v, %v", sent, err)
	}
	if sent, err := b.sendTo(`{"instance":2,"message":{"to":"two"}}`); err != nil || !slices.Equal(sent.Instances, []int{2}) {
		t.Errorf("sent to %+v, %v", sent, err)
	}
	if m := one.hear(); m["to"] != "all" {
		t.Errorf("instance 1 got %v", m)
	}
	for _, want := range []string{"all", "two"} {
		if m := two.hear(); m["to"] != want {
			t.Errorf("instance 2 got %v, want %s", m, want)
		}
	}
	for parameters, want := range map[string]string{
		`{"instance":3,"message":1}`:        "instance 3 is not there, or runs no program that takes messages",
		`{"instance":9,"message":1}`:        "instance 9 is not there, or runs no program that takes messages",
		`{"message":{"cmd":"NODE_HANDLE"}}`: "begins with NODE_",
		`{}`:                                "not JSON",
	} {
		if _, err := b.sendTo(parameters); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", parameters, err, want)
		}
	}
	var refused *control.Error
	if _, err := b.sendTo(`{"instance":9,"message":1}`); !errors.As(err, &refused) || refused.Name != control.ErrNoSuchInstance {
		t.Errorf("error is %v", err)
	}
}

// A program's process:msg goes to the others, or to one of them, as it is.
func TestMessageFromInstanceToInstance(t *testing.T) {
	b := newBench(t, Options{})
	var all []*worker
	for i := range 3 {
		w, _ := b.nodeUp(i + 1)
		all = append(all, w)
	}
	fmt.Fprintln(all[0].conn, `{"type":"process:msg","topic":"first","data":{"x":1}}`)
	b.took()
	fmt.Fprintln(all[0].conn, `{"type":"process:msg","topic":"second","to":3}`)
	b.took()
	fmt.Fprintln(all[2].conn, `{"type":"process:msg","topic":"third","to":1}`)
	b.took()
	for number, want := range map[int][]string{1: {"third"}, 2: {"first"}, 3: {"first", "second"}} {
		for _, topic := range want {
			if m := all[number-1].hear(); m["topic"] != topic || m["type"] != "process:msg" {
				t.Errorf("instance %d got %v, want topic %s", number, m, topic)
			}
		}
	}
}

// A program that reads nothing loses messages; the others get theirs, and who sends waits for
// nobody.
func TestMessageForAProgramThatReadsNothing(t *testing.T) {
	b := newBench(t, Options{})
	b.nodeUp(1)
	two, _ := b.nodeUp(2)
	message := fmt.Sprintf(`{"message":%q}`, strings.Repeat("x", 60<<10))
	var dropped []int
	for n := 0; len(dropped) == 0 && n < 100; n++ {
		sent, err := b.sendTo(message)
		if err != nil {
			t.Fatal(err)
		}
		dropped = sent.Dropped
		if _, err := two.read.ReadBytes('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(dropped, []int{1}) {
		t.Errorf("dropped for %v", dropped)
	}
}

func TestReadyIsAMessage(t *testing.T) {
	b := newBench(t, Options{})
	w, _ := b.nodeUp(1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if !b.channels.Silent(1) {
		t.Error("it is said to have said so")
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.listening(ctx, &control.Request{Parameters: json.RawMessage(`{"instance":1,"message":true}`)})
		done <- err
	}()
	b.took() // not yet
	fmt.Fprintln(w.conn, `"ready"`)
	for {
		select {
		case request := <-b.requests:
			request()
			continue
		case err := <-done:
			if err != nil || b.channels.Silent(1) {
				t.Errorf("waiting ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the message was not heard")
		}
		return
	}
}

// A program that is told "shutdown" ends by itself: the drain goes on until then.
func TestDrainByShutdownMessage(t *testing.T) {
	b := newBench(t, Options{Settings: control.Settings{DrainTimeout: time.Hour, ShutdownMessage: true}})
	w, listener := b.nodeUp(1)
	b.up(2)
	d := b.beginDrain(control.DrainParameters{Instance: 1})
	w.hear()
	b.channels.Ask()
	w.asked(1)
	w.report(1, 0, true)
	b.took()
	later := time.Now().Add(time.Second)
	acceptAll(t, listener)
	b.countDrains(later)
	if line, err := w.read.ReadString('\n'); err != nil || line != "\"shutdown\"\n" {
		t.Errorf("the program hears %q, %v", line, err)
	}
	b.countDrains(later.Add(time.Minute))
	if !b.drains[d] {
		t.Error("the drain has ended before the program")
	}
	w.conn.Close()
	b.took()
	if got := <-d.done; got.TimedOut {
		t.Errorf("drain ended with %+v", got)
	}
	b.forgetDrain(d)
}
