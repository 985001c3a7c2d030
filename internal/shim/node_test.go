package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/nodecluster"
	"github.com/unitgen/unitgen/internal/steer"
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
	ours, err := nodecluster.NewChannel(fds[0], 0)
	if err != nil {
		b.t.Fatal(err)
	}
	theirs, err := nodecluster.Adopt(fds[1])
	if err != nil {
		b.t.Fatal(err)
	}
	channel := b.newNodeChannel(number, ours)
	if err := b.attachNode(channel); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan struct{})
	go func() { b.converse(ctx, channel); close(ended) }()
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
	return b.callListenOn(w, b.addresses[0].Address.Port())
}

func (b *bench) callListenOn(w *worker, port uint16) (asked string) {
	b.t.Helper()
	asked = fmt.Sprintf(`"index":0,"data":null,"address":null,"port":%d,"addressType":4`, port)
	w.say(`"act":"queryServer",` + asked)
	b.took()
	return asked
}

// nodeUp makes an instance that runs on Node and listens on the bench's port; listener is the one that it was given.
func (b *bench) nodeUp(number int) (w *worker, key string, listener int) {
	b.t.Helper()
	fd := b.listen(b.address())
	b.listeners[number] = fd
	dup, err := unix.Dup(fd)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.join(number, []int{dup}); err != nil {
		b.t.Fatal(err)
	}
	b.socket(number, "running")
	b.service(number, "activating", "start-post")
	w = b.attach(number)
	asked := b.callListen(w)
	msg, _ := w.hear()["msg"].(map[string]any)
	if len(w.fds) != 1 || msg["errno"] != 0.0 {
		b.t.Fatalf("the program was given %v with descriptors %v", msg, w.fds)
	}
	key, listener = msg["key"].(string), w.fds[0]
	b.t.Cleanup(func() { unix.Close(listener) })
	w.say(`"act":"listening",` + asked)
	b.took()
	b.service(number, "active", "running")
	return w, key, listener
}

func TestNodeGetsItsOwnListener(t *testing.T) {
	b := newBench(t, Options{})
	if err := unix.Listen(b.parking, 128); err != nil {
		t.Fatal(err)
	}
	_, _, one := b.nodeUp(1)
	b.nodeUp(2)
	if flags, err := unix.FcntlInt(uintptr(one), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags of the listener are %#x, %v: Node freezes on one that blocks", flags, err)
	}
	b.dial(10)
	if n := acceptAll(t, one); n != 5 {
		t.Errorf("instance 1 accepted %d of 10 connections, want 5", n)
	}
	if missing, err := b.missing(1); err != nil || len(missing.Missing) > 0 {
		t.Errorf("instance 1 is said to miss %v, %v", missing, err)
	}
}

func TestBacklogOfTheSocketUnitIsPutBack(t *testing.T) {
	b := newBench(t, Options{})
	w, key, listener := b.nodeUp(1)
	w.say(fmt.Sprintf(`"act":"close","key":%q`, key))
	b.took()
	w.say(fmt.Sprintf(`"act":"queryServer","index":0,"port":%d,"addressType":4`, b.addresses[0].Address.Port()))
	b.took()
	w.hear()
	if err := unix.Listen(listener, 5); err != nil { // as Node does with its own backlog
		t.Fatal(err)
	}
	w.say(fmt.Sprintf(`"act":"listening","index":0,"port":%d,"addressType":4`, b.addresses[0].Address.Port()))
	b.took()
	if _, backlog, err := steer.Queue(listener); err != nil || backlog != 128 {
		t.Errorf("backlog is %d, %v, want 128", backlog, err)
	}
}

func TestNodeThatClosesItsServerIsOffTheRing(t *testing.T) {
	b := newBench(t, Options{})
	w, key, _ := b.nodeUp(1)
	b.up(2)
	want(t, "both serve", b.connect(4), map[int]int{1: 2, 2: 2})
	b.dial(4) // two of them wait at instance 1, which closes
	w.say(fmt.Sprintf(`"act":"close","key":%q`, key))
	b.took()
	want(t, "what waited went to the other", b.accepted(), map[int]int{2: 4})
	want(t, "instance 1 has closed", b.connect(4), map[int]int{2: 4})
}

func TestEndOfTheChannelIsTheEndOfTheInstance(t *testing.T) {
	b := newBench(t, Options{})
	w, _, _ := b.nodeUp(1)
	b.up(2)
	w.conn.Close()
	b.took()
	want(t, "instance 1 has ended", b.connect(4), map[int]int{2: 4})
	b.service(1, "activating", "auto-restart")
	if b.instances[1].node != nil {
		t.Error("the process is remembered after its end")
	}
	b.service(1, "active", "running")
	want(t, "a program of another kind follows", b.connect(4), map[int]int{1: 2, 2: 2})
}

// A program keeps back all that it sends behind a descriptor until that is acknowledged, whatever its channel is for.
func TestDescriptorOfTheProgramIsAcknowledged(t *testing.T) {
	for name, b := range map[string]*bench{
		"steer": newBench(t, Options{}), "handoff": newHandedNodeBench(t, Options{Strategy: app.RoundRobin}),
		"messages": newBench(t, Options{Messages: true}),
	} {
		t.Run(name, func(t *testing.T) {
			if name == "handoff" {
				b.joinHanded(1)
			} else {
				b.up(1)
			}
			w := b.attach(1)
			w.raw(`{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1}`)
			b.took()
			if m := w.hear(); m["cmd"] != "NODE_HANDLE_ACK" {
				t.Errorf("the program hears %v", m)
			}
		})
	}
}

func TestRefusedListenIsToldToBoth(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	w := b.attach(1)
	w.say(`"act":"queryServer","index":0,"data":{"ticketKeys":"00"},"port":1,"addressType":4`)
	b.took()
	m := w.hear()
	if m["errno"] != -float64(unix.ENOTSUP) || m["ack"] != 0.0 || m["data"] == nil {
		t.Errorf("the program was told %v, want errno %d, and its data back", m, -int(unix.ENOTSUP))
	}
	missing, err := b.missing(1)
	if err != nil || len(missing.Missing) != 1 || !strings.Contains(missing.Refused, "give --listen=1,") {
		t.Errorf("who waits for the instance is told %+v, %v", missing, err)
	}
}

// A drain first lets connections go, and closes the servers when none is busy; without counts that is when nothing waits.
func TestNodeDrainsInTwoSteps(t *testing.T) {
	b := newBench(t, Options{DrainTimeout: time.Hour})
	w, key, listener := b.nodeUp(1)
	b.up(2)
	b.dial(2) // one waits at instance 1
	d := b.beginDrain(DrainParameters{Instance: 1})
	if m := w.hear(); m["cmd"] != "NODE_UNITGEN" || m["act"] != "drain" {
		t.Errorf("first the program hears %v", m)
	}
	d.began = d.began.Add(-letGoFor)
	b.countDrains()
	if !d.closing.IsZero() {
		t.Fatal("servers are to close while a connection waits to be accepted")
	}
	acceptAll(t, listener)
	b.countDrains()
	if m := w.hear(); m["cmd"] != "NODE_CLUSTER" || m["act"] != "disconnect" {
		t.Errorf("then the program hears %v", m)
	}
	w.say(fmt.Sprintf(`"act":"close","key":%q`, key))
	b.took()
	w.conn.Close()
	b.took()
	if got := <-d.done; got.TimedOut {
		t.Errorf("drain ended with %+v", got)
	}
	b.forgetDrain(d)
}

func TestDrainThatIsGivenUpIsTakenBack(t *testing.T) {
	b := newBench(t, Options{DrainTimeout: time.Hour})
	w, _, _ := b.nodeUp(1)
	d := b.beginDrain(DrainParameters{Instance: 1})
	w.hear()
	b.forgetDrain(d)
	if m := w.hear(); m["cmd"] != "NODE_UNITGEN" || m["act"] != "serve" {
		t.Errorf("the program hears %v", m)
	}
}

// What the next shim finds in the FD store is what this one knew.
func TestStateOfNodesIsReadBack(t *testing.T) {
	b := newBench(t, Options{})
	b.nodeUp(1)
	b.nodes.tickets[b.addresses[0].node()] = json.RawMessage(`{"ticketKeys":"00"}`)
	state := nodesState{Saved: 5, Tickets: b.nodes.tickets, Workers: map[int]nodecluster.Worker{1: b.instances[1].node.worker}}
	stored := make(map[string][]int)
	for i, s := range []nodesState{{Saved: 4}, state} {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Write(text); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		stored[fmt.Sprint(storedNodes, i)] = []int{fd}
	}
	stored["app@1.socket"] = []int{99}
	channels, back := b.takeNodes(stored)
	worker := back.Workers[1]
	if len(channels) != 0 || len(stored) != 1 || back.Saved != 5 || len(worker.Missing(b.nodeAddresses())) != 0 ||
		string(back.Tickets[b.addresses[0].node()]) != `{"ticketKeys":"00"}` {
		t.Errorf("read back %+v, channels %v, left over %v", back, channels, stored)
	}
}

// Who cannot be looked up gets no channel and no answer, so that it tries again. (That a stranger is turned away is tested
// where there is a manager to ask.)
func TestPeerThatCannotBeLookedUpGetsNoChannel(t *testing.T) {
	b := newBench(t, Options{})
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	conn, err := nodecluster.Adopt(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.admit(t.Context(), conn) // nobody to ask: the bench has no manager
	conn.Close()
	if err == nil {
		t.Error("a stranger was admitted")
	}
	if g, err := nodecluster.AwaitGreeting(fds[1]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the peer was greeted with %+v, %v", g, err)
	}
}

func TestAppIsNotIdleWhileInstancesStart(t *testing.T) {
	b := newBench(t, Options{IdleExit: time.Second})
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
}

// Each save costs PID 1 two messages: what an instance asks for in vain is not worth one.
func TestStateThatHasNotChangedIsNotSaved(t *testing.T) {
	b := newBench(t, Options{})
	w, _, _ := b.nodeUp(1)
	before := b.nodes.saved
	for range 20 {
		b.callListenOn(w, 1)
		if m := w.hear(); m["errno"] != -float64(unix.ENOTSUP) {
			t.Fatalf("listen() on a port that is not the app's is answered with %v", m)
		}
	}
	if b.nodes.saved != before {
		t.Errorf("%d saves for 20 refused calls of listen()", b.nodes.saved-before)
	}
}
