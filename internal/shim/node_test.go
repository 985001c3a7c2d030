package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/nodecluster"
)

// worker plays the Node process of an instance.
type worker struct {
	t    *testing.T
	conn *net.UnixConn
	read *bufio.Reader
	seq  int
	fds  []int
}

// attach gives an instance a process, whose messages the bench's own goroutine takes in.
func (b *bench) attach(number int) *worker {
	b.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	theirs, err := nodecluster.Adopt(fds[1])
	if err != nil {
		b.t.Fatal(err)
	}
	speak, err := b.channels.Attach(number, fds[0])
	if err != nil {
		b.t.Fatal(err)
	}
	b.settled()
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan struct{})
	go func() { speak(ctx); close(ended) }()
	b.t.Cleanup(func() { cancel(); <-ended; theirs.Close() })
	if err := theirs.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		b.t.Fatal(err)
	}
	w := &worker{t: b.t, conn: theirs}
	w.read = bufio.NewReader(w)
	return w
}

// Read is for w.read alone; it keeps the descriptors that come.
func (w *worker) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := w.conn.ReadMsgUnix(p, oob)
	if errors.Is(err, io.EOF) {
		err = io.EOF // which net wraps
	}
	if err != nil {
		return max(n, 0), err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range messages {
		fds, _ := unix.ParseUnixRights(&m)
		w.fds = append(w.fds, fds...)
	}
	return n, err
}

// say sends a message of the cluster's.
func (w *worker) say(fields string) {
	w.t.Helper()
	if _, err := fmt.Fprintf(w.conn, `{"cmd":"NODE_CLUSTER","seq":%d,%s}`+"\n", w.seq, fields); err != nil {
		w.t.Fatal(err)
	}
	w.seq++
}

// hear returns the next message.
func (w *worker) hear() map[string]any {
	w.t.Helper()
	line, err := w.read.ReadBytes('\n')
	if err != nil {
		w.t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(line, &m); err != nil {
		w.t.Fatalf("%s: %v", line, err)
	}
	return m
}

// took runs the next request that the shim's loop would run.
func (b *bench) took() {
	b.t.Helper()
	select {
	case request := <-b.requests:
		request()
		b.settled()
	case <-time.After(20 * time.Second):
		b.t.Fatal("the shim was not asked for anything")
	}
}

// callListen has the program call listen() for the bench's port. It returns what that looks like.
func (b *bench) callListen(w *worker) (asked string) {
	b.t.Helper()
	return b.callListenOn(w, b.port())
}

func (b *bench) callListenOn(w *worker, port uint16) (asked string) {
	b.t.Helper()
	asked = fmt.Sprintf(`"index":0,"data":null,"address":null,"port":%d,"addressType":4`, port)
	w.say(`"act":"queryServer",` + asked)
	b.took()
	return asked
}

// port is that of the public listener.
func (b *bench) port() uint16 { return uint16(b.address().(*unix.SockaddrInet4).Port) }

// nodeUp makes an instance that runs on Node, has drain.cjs loaded and serves; listener is its own.
func (b *bench) nodeUp(number int) (w *worker, listener int) {
	b.t.Helper()
	b.up(number)
	w = b.attach(number)
	w.asked(0)
	if m := w.hear(); m["act"] != "tickets" || len(m["keys"].(string)) != 2*48 {
		b.t.Errorf("the program hears %v", m)
	}
	w.report(0, 0, false)
	b.took()
	return w, b.listeners[number]
}

// asked waits until the program is asked for a report, which happens anew at each tick.
func (w *worker) asked(token int) {
	w.t.Helper()
	for {
		m := w.hear()
		if m["act"] != "report" {
			w.t.Fatalf("the program hears %v", m)
		}
		if m["token"] == float64(token) {
			return
		}
	}
}

// report says what drain.cjs does.
func (w *worker) report(token, busy int, stops bool) {
	w.t.Helper()
	line := fmt.Sprintf(`{"cmd":"NODE_UNITGEN","act":"report","token":%d,"open":0,"busy":%d`, token, busy)
	if stops {
		line += `,"stops":true`
	}
	w.raw(line + "}")
}

// A program goes on without its channel, which it may end by process.disconnect().
func TestNodeServesWithoutItsChannel(t *testing.T) {
	b := newBench(t, Options{})
	w, _ := b.nodeUp(1)
	b.up(2)
	w.conn.Close()
	b.took()
	want(t, "instance 1 has no channel", b.connect(4), map[int]int{1: 2, 2: 2})
	if !b.channels.Silent(1) {
		t.Error("the channel is remembered after its end")
	}
}

// A program keeps back all that it sends behind a descriptor until that is acknowledged, whatever
// its channel is for.
func TestDescriptorOfTheProgramIsAcknowledged(t *testing.T) {
	for name, b := range map[string]*bench{
		"steer": newBench(t, Options{}), "handoff": newHandedNodeBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin}}),
		"messages": newBench(t, Options{Messages: true}),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "handoff" {
				b.joinHanded(1)
			} else {
				b.up(1)
			}
			w := b.attach(1)
			if name == "steer" {
				w.asked(0)
				w.hear() // of tickets
			}
			w.raw(`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1}`)
			b.took()
			if m := w.hear(); m["cmd"] != "NODE_HANDLE_ACK" {
				t.Errorf("the program hears %v", m)
			}
		})
	}
}

// What a program of the steer path may say is about itself: it asks for no listener and gets none.
func TestNodeOnTheSteerPathHasNothingToAskFor(t *testing.T) {
	b := newBench(t, Options{})
	w, _ := b.nodeUp(1)
	b.callListen(w)
	w.raw(`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1}`)
	b.took()
	if m := w.hear(); m["cmd"] != "NODE_HANDLE_ACK" || len(w.fds) > 0 {
		t.Errorf("the program hears %v, with descriptors %v", m, w.fds)
	}
}

// A drain waits for what the program has under way by its own word, which must be newer than the
// drain.
func TestDrainWaitsForRequestsOfNode(t *testing.T) {
	for _, stops := range []bool{true, false} {
		t.Run(fmt.Sprintf("handles SIGTERM %t", stops), func(t *testing.T) {
			b := newBench(t, Options{Settings: control.Settings{DrainTimeout: time.Hour}})
			w, _ := b.nodeUp(1)
			b.up(2)
			d := b.beginDrain(control.DrainParameters{Instance: 1})
			if m := w.hear(); m["cmd"] != "NODE_UNITGEN" || m["act"] != "drain" {
				t.Errorf("first the program hears %v", m)
			}
			later := time.Now().Add(time.Second)
			for busy := 2; busy >= 0; busy-- {
				b.countDrains(later)
				if !b.drains[d] {
					t.Fatalf("the drain goes on with %d requests under way or none known", busy+1)
				}
				b.channels.Ask()
				w.asked(1)
				w.report(1, busy, stops)
				b.took()
			}
			b.countDrains(later)
			if !stops { // it would drop all connections at once
				if m := w.hear(); m["act"] != "close" || !b.drains[d] {
					t.Errorf("then the program hears %v", m)
				}
				b.countDrains(later.Add(6 * time.Second))
			}
			if b.drains[d] {
				t.Fatal("the drain goes on with nothing under way")
			}
			b.forgetDrain(d)
		})
	}
}

// Without counts a drain waits for what waits to be accepted.
func TestDrainOfNodeWaitsForItsQueue(t *testing.T) {
	b := newBench(t, Options{Settings: control.Settings{DrainTimeout: time.Hour}})
	b.up(1)
	w := b.attach(1) // without drain.cjs
	w.asked(0)
	b.up(2)
	b.dial(2) // one waits at instance 1
	d := b.beginDrain(control.DrainParameters{Instance: 1})
	later := time.Now().Add(time.Second)
	b.countDrains(later)
	if !b.drains[d] {
		t.Fatal("the drain ended while a connection waits to be accepted")
	}
	acceptAll(t, b.listeners[1])
	b.countDrains(later)
	if got := <-d.done; got.TimedOut {
		t.Errorf("drain ended with %+v", got)
	}
	b.forgetDrain(d)
}

func TestDrainThatIsGivenUpIsTakenBack(t *testing.T) {
	b := newBench(t, Options{Settings: control.Settings{DrainTimeout: time.Hour}})
	w, _ := b.nodeUp(1)
	d := b.beginDrain(control.DrainParameters{Instance: 1})
	w.hear()
	b.forgetDrain(d)
	if m := w.hear(); m["cmd"] != "NODE_UNITGEN" || m["act"] != "serve" {
		t.Errorf("the program hears %v", m)
	}
}

func TestAppIsNotIdleWhileInstancesStart(t *testing.T) {
	b := newBench(t, Options{Settings: control.Settings{IdleExit: time.Second}})
	b.up(1)
	b.up(2)
	if b.changing() {
		t.Error("instances are said to start, and are up")
	}
	b.service(2, "activating", "start-post")
	if !b.changing() {
		t.Error("instance 2 starts, and the app may sleep")
	}
	b.service(2, "activating", "auto-restart")
	if b.changing() {
		t.Error("an instance that waits for its restart keeps the app awake")
	}
	b.rollouts[1] = true
	if !b.changing() {
		t.Error("a rollout watches new code, and the app may sleep")
	}
}
