package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/shim/handed"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// newHandedBench is newBench on the handoff path; connections are handed out beside the test.
func newHandedBench(t *testing.T, o Options) *bench {
	t.Helper()
	return newHandedBenchWith(t, o, inherited{})
}

// newHandedBenchWith is for programs that are given their connections if they have channels.
func newHandedBenchWith(t *testing.T, o Options, in inherited) *bench {
	t.Helper()
	b := prepareBench(t, &o, in)
	p, err := handed.Open(handed.Options{App: o.App, Strategy: o.Strategy, Parking: []int{b.dup(b.parking)},
		Receivers: in.channels != nil, Store: o.Store, Log: o.Log})
	if err != nil {
		t.Fatal(err)
	}
	if o.Path = p; in.channels != nil {
		o.Receiving = p
	}
	b.start(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		p.Close()
	})
	return b
}

// traffic is what the path knows of an instance.
func (b *bench) traffic(number int) path.Traffic {
	b.t.Helper()
	all, err := b.path.Count(time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	return all[number]
}

// has says whether an instance has that many connections, and none on its way.
func (b *bench) has(number, open int) func() bool {
	return func() bool { t := b.traffic(number); return t.Waiting == 0 && t.Open == open }
}

// inline is a path.Loop for a test that is the shim's goroutine.
type inline struct{ *Shim }

func (inline) Do(_ context.Context, f func() error) error { return f() }

// attachHanded gives an instance a channel.
func (b *bench) attachHanded(number, channel int) error {
	_, err := b.path.Handle(b.t.Context(), inline{b.Shim}, &control.Request{
		Method: control.MethodConnect, Parameters: json.RawMessage(fmt.Sprintf(`{"instance":%d}`, number)), FDs: []int{channel},
	})
	return err
}

// joinHanded joins an instance with its private listener, which is at the path returned.
func (b *bench) joinHanded(number int) string {
	b.t.Helper()
	address := &net.UnixAddr{Name: filepath.Join(b.t.TempDir(), "door"), Net: "unixpacket"}
	door, err := net.ListenUnix("unixpacket", address)
	if err != nil {
		b.t.Fatal(err)
	}
	defer door.Close()
	door.SetUnlinkOnClose(false)
	file, err := door.File()
	if err != nil {
		b.t.Fatal(err)
	}
	defer file.Close()
	var fds [2]int // for the shim, and for the program
	for i := range fds {
		if fds[i], err = unix.Dup(int(file.Fd())); err != nil { // not close-on-exec, as if passed
			b.t.Fatal(err)
		}
	}
	b.listeners[number] = fds[1]
	if err := b.join(number, fds[:1]); err != nil {
		b.t.Fatal(err)
	}
	return address.Name
}

// handedUp joins an instance that PID 1 calls active, makes its channel, and returns what its
// program would take.
func (b *bench) handedUp(number int) net.Listener {
	b.t.Helper()
	door := b.joinHanded(number)
	channel, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(channel, &unix.SockaddrUnix{Name: door})
	}
	if err == nil {
		err = b.attachHanded(number, channel)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.socket(number, "running")
	b.service(number, "active", "running")
	passed := map[string]string{"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": activation.HandoffName}
	descriptors, err := activation.Env{
		Lookup: func(key string) (string, bool) { value, ok := passed[key]; return value, ok },
		Unset:  func(string) error { return nil }, PID: 1, FirstFD: b.listeners[number],
	}.Inherit()
	if err != nil {
		b.t.Fatal(err)
	}
	listeners, err := descriptors.AllListeners()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { listeners[0].Close() })
	return listeners[0]
}

// accepting accepts connections until the listener is closed.
func accepting(ln net.Listener) <-chan net.Conn {
	conns := make(chan net.Conn, 100)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			conns <- conn
		}
	}()
	return conns
}

// awaitHanded takes in what instances say until done.
func (b *bench) awaitHanded(done func() bool) {
	b.t.Helper()
	timeout := time.NewTimer(30 * time.Second)
	defer timeout.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-b.path.Changed():
			b.pathChanged()
			b.settled()
		case <-look.C:
		case <-timeout.C:
			b.t.Fatal("it did not come to be")
		}
	}
}

func (b *bench) inRing(number int) bool {
	backend, ok := b.pool.Backend(number)
	return ok && backend.InRing()
}

func TestHandedInstanceIsUpWhenItAsksForConnections(t *testing.T) {
	b := newHandedBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin}})
	ln := b.handedUp(1)
	if b.inRing(1) {
		t.Error("an instance that does not accept is on the ring")
	}
	if now, err := b.missing(1); err != nil || len(now.Missing) != 1 {
		t.Errorf("missing = %+v, %v", now, err)
	}
	b.dial(1)
	conns := accepting(ln)
	b.awaitHanded(func() bool { return b.inRing(1) })
	defer (<-conns).Close()
	b.awaitHanded(func() bool { return b.snapshot().Instances[0].Connections == 1 })
	status := b.snapshot()
	if status.Path != "handoff" || status.Reason != "asked for" || status.Instances[0].Steered != 1 {
		t.Errorf("status = %+v", status)
	}
	ln.Close()
	b.awaitHanded(func() bool { return !b.inRing(1) })
}

func TestHandedDrainEndsWhenNothingIsBusy(t *testing.T) {
	b := newHandedBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin, DrainTimeout: time.Hour}})
	conns := accepting(b.handedUp(1))
	b.awaitHanded(func() bool { return b.inRing(1) })
	b.dial(1)
	conn := <-conns
	defer conn.Close()
	d := b.beginDrain(control.DrainParameters{Instance: 1})
	if state, _ := b.pool.Backend(1); state.State != balance.Draining || len(b.ring) != 0 {
		t.Errorf("state is %s, ring %v", state.State, b.ring)
	}
	var result control.Drained
	b.awaitHanded(func() bool { // a second after the connection came it is idle
		b.countDrains(time.Now())
		b.path.Look(time.Now()) // asks again
		select {
		case result = <-d.done:
			return true
		default:
			return false
		}
	})
	if result.Open != 1 || result.Busy != 0 || result.TimedOut {
		t.Errorf("drained = %+v", result)
	}
}

func TestHandedStuckInstanceIsEjected(t *testing.T) {
	b := newHandedBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin}})
	stuck := b.handedUp(1)
	first := make(chan net.Conn, 1)
	go func() {
		if conn, err := stuck.Accept(); err == nil {
			first <- conn
		}
	}()
	b.awaitHanded(func() bool { return b.inRing(1) })
	b.dial(1)
	defer (<-first).Close()
	conns := accepting(b.handedUp(2))
	b.awaitHanded(func() bool { return b.inRing(2) })
	b.dial(2) // one for each
	defer (<-conns).Close()
	b.awaitHanded(func() bool {
		if err := b.look(time.Now()); err != nil {
			t.Fatal(err)
		}
		b.settled()
		return !b.inRing(1)
	})
	defer (<-conns).Close() // what was the stuck one's
}

func TestHandedRefuseLeavesWhatWaits(t *testing.T) {
	b := newHandedBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin}})
	b.dial(1)
	if err := handoff.Refuse(b.parking); err != nil {
		t.Fatal(err)
	}
	sa := b.address().(*unix.SockaddrInet4)
	dialer := net.Dialer{Timeout: 100 * time.Millisecond}
	address := (&net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}).String()
	if conn, err := dialer.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("connected after the port was closed")
	}
	if n := b.path.Describe().Addresses[0].Waiting; n != 1 {
		t.Errorf("%d connections wait", n)
	}
	if err := handoff.Admit(b.parking); err != nil {
		t.Fatal(err)
	}
	b.dial(1)
	conns := accepting(b.handedUp(1))
	b.awaitHanded(func() bool { return b.inRing(1) })
	for range 2 {
		defer (<-conns).Close()
	}
}

func TestHandedJoinRefusesWhatIsNoPrivateListener(t *testing.T) {
	b := newHandedBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin}})
	fd, err := unix.Dup(b.listen(b.address()))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.join(1, []int{fd}); err == nil {
		t.Error("a port of its own was taken")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	if err := b.attachHanded(1, pair[0]); err == nil {
		t.Error("a channel of an instance that has not joined was taken")
	}
}
