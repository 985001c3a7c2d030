package activation

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// channelAt plays the balancer's side of a channel: it greets whoever connects, with one greeting
// after the other.
func channelAt(t *testing.T, greetings ...string) (Env, <-chan net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "channel")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan net.Conn, len(greetings))
	t.Cleanup(func() {
		ln.Close()
		for conn := range conns { // those that the test has not taken
			conn.Close()
		}
	})
	go func() { // ends with ln
		defer close(conns)
		for _, greeting := range greetings {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if greeting == "" { // as one that dies
				conn.Close()
				continue
			}
			fmt.Fprintln(conn, greeting)
			conns <- conn
		}
	}()
	lookup := func(key string) (string, bool) { return path, key == "UNITGEN_CHANNEL" }
	return Env{Lookup: lookup}, conns
}

func TestMessagesOfAnApp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	env, conns := channelAt(t, "", `{"instance":3}`) // the first balancer dies
	m, err := env.OpenMessages(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	balancer := <-conns
	defer balancer.Close()
	if m.Instance() != 3 {
		t.Errorf("instance is %d", m.Instance())
	}
	fmt.Fprint(balancer, `{"a":1}`+"\n"+`"two"`+"\n")
	for _, want := range []string{`{"a":1}`, `"two"`} {
		if got, err := m.Receive(); err != nil || string(got) != want {
			t.Errorf("received %s, %v, want %s", got, err, want)
		}
	}
	if err := m.Send(2, map[string]int{"x": 1}); err != nil {
		t.Error(err)
	}
	if err := m.Send(0, "all"); err != nil {
		t.Error(err)
	}
	lines := bufio.NewReader(balancer)
	for _, want := range []string{`{"type":"process:msg","to":2,"data":{"x":1}}`, `{"type":"process:msg","data":"all"}`} {
		if line, err := lines.ReadString('\n'); err != nil || line != want+"\n" {
			t.Errorf("sent %q, %v, want %s", line, err, want)
		}
	}
	if err := m.Send(1, strings.Repeat("x", maxLetter)); err == nil {
		t.Error("a message that the balancer would throw away was sent")
	}
	if err := m.Send(-1, nil); err == nil {
		t.Error("a message to instance -1 was sent")
	}
	balancer.Close()
	if _, err := m.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestMessagesAreRefused(t *testing.T) {
	env, _ := channelAt(t, `{"error":"only an instance's main process may connect"}`)
	if _, err := env.OpenMessages(t.Context()); err == nil || !strings.Contains(err.Error(), "main process") {
		t.Errorf("refused with %v", err)
	}
	none := Env{Lookup: func(string) (string, bool) { return "", false }}
	if _, err := none.OpenMessages(t.Context()); !errors.Is(err, ErrNotPassed) {
		t.Errorf("without a channel: %v", err)
	}
}

// A balancer that does not come is waited for as long as the caller likes.
func TestMessagesWaitForTheBalancer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	env := Env{Lookup: func(string) (string, bool) { return filepath.Join(t.TempDir(), "none"), true }}
	if _, err := env.OpenMessages(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a balancer: %v", err)
	}
}

func TestReceiveEndsWithClose(t *testing.T) {
	env, _ := channelAt(t, `{"instance":1}`)
	m, err := env.OpenMessages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan error, 1)
	go func() { _, err := m.Receive(); received <- err }()
	m.Close()
	if err := <-received; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
