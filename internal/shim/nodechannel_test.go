package shim

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
)

// newHandedNodeBench is newHandedBench for an app of Node.js programs.
func newHandedNodeBench(t *testing.T, o Options) *bench {
	t.Helper()
	channels, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "channel"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { channels.Close() })
	return newHandedBenchWith(t, o, inherited{channels: channels})
}

// handedNodeUp makes an instance that runs on Node and listens on the bench's port.
func (b *bench) handedNodeUp(number int) (w *worker, key string) {
	b.t.Helper()
	b.joinHanded(number)
	b.socket(number, "running")
	b.service(number, "activating", "start-post")
	w = b.attach(number)
	asked := b.callListen(w)
	answer := w.hear()
	name, _ := answer["sockname"].(map[string]any)
	if len(w.fds) != 0 || answer["errno"] != 0.0 || name["port"] != float64(b.port()) || name["family"] != "IPv4" {
		b.t.Fatalf("the program was given %v with descriptors %v", answer, w.fds)
	}
	w.say(`"act":"listening",` + asked)
	b.took()
	b.service(number, "active", "running")
	b.settled()
	return w, answer["key"].(string)
}

// given waits for a connection and returns its number.
func (w *worker) given(key string) (number int) {
	w.t.Helper()
	for {
		outer := w.hear()
		m, ok := outer["msg"].(map[string]any)
		if !ok {
			continue // a question of the shim's
		}
		if m["act"] != "newconn" || m["key"] != key || len(w.fds) != 1 {
			w.t.Fatalf("the program was given %v with descriptors %v", outer, w.fds)
		}
		return int(m["seq"].(float64))
	}
}

// raw sends a line that has no number.
func (w *worker) raw(line string) {
	w.t.Helper()
	if _, err := fmt.Fprintln(w.conn, line); err != nil {
		w.t.Fatal(err)
	}
}

// accept takes the connection that was given last and returns it.
func (w *worker) accept(number int) int {
	w.t.Helper()
	w.raw(`{"cmd":"NODE_HANDLE_ACK"}`)
	w.say(fmt.Sprintf(`"ack":%d,"accepted":true`, number))
	fd := w.fds[0]
	w.fds = nil
	w.t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestNodeIsHandedConnections(t *testing.T) {
	b := newHandedNodeBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin}})
	w, key := b.handedNodeUp(1)
	if !b.inRing(1) {
		t.Fatal("the instance listens, and is not on the ring")
	}
	b.dial(1)
	number := w.given(key)
	if flags, err := unix.FcntlInt(uintptr(w.fds[0]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags of the connection are %#x, %v: Node freezes on one that blocks", flags, err)
	}
	if st := b.traffic(1); st.Waiting != 1 || st.Open != 0 {
		t.Errorf("on its way: %+v", st)
	}
	w.accept(number)
	b.awaitHanded(b.has(1, 1))
	w.raw(`{"cmd":"NODE_UNITGEN","act":"report","token":0,"open":0,"busy":0}`)
	b.awaitHanded(b.has(1, 0))
}

// A program may say a port of its own for the app's address, which the settings name; why it may
// not listen on another is known when it has ended of that.
func TestNodeSaysAPortOfItsOwn(t *testing.T) {
	b := newHandedNodeBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin, ProgramPort: 3000}})
	b.joinHanded(1)
	b.socket(1, "running")
	b.service(1, "activating", "start-post")
	w := b.attach(1)
	b.callListenOn(w, 4000)
	if answer := w.hear(); answer["errno"] != -float64(unix.ENOTSUP) {
		t.Errorf("port 4000 got %v", answer)
	}
	w.conn.Close()
	b.took()
	now, err := b.missing(1)
	if err != nil || len(now.Missing) != 1 || !strings.Contains(now.Refused, "--program-port=4000") {
		t.Errorf("missing = %+v, %v", now, err)
	}
	w = b.attach(1)
	if now, err := b.missing(1); err != nil || now.Refused != "" {
		t.Errorf("of the next process is said %+v, %v", now, err)
	}
	asked := b.callListenOn(w, 3000)
	answer := w.hear()
	if name, _ := answer["sockname"].(map[string]any); answer["errno"] != 0.0 || name["port"] != 3000.0 {
		t.Errorf("port 3000 got %v", answer)
	}
	w.say(`"act":"listening",` + asked)
	b.took()
	b.service(1, "active", "running")
	b.settled()
	b.dial(1)
	w.accept(w.given(answer["key"].(string)))
	b.awaitHanded(b.has(1, 1))
	if err := b.apply(control.Settings{Strategy: balance.RoundRobin, ProgramPort: 4000}); err != nil {
		t.Fatal(err)
	}
	w.conn.Close() // as a reload does
	b.took()
	w = b.attach(1)
	b.callListenOn(w, 4000)
	if answer := w.hear(); answer["errno"] != 0.0 {
		t.Errorf("port 4000 got %v when that was the setting", answer)
	}
}

// What a process says beside its connections waits for the shim's loop, which may be at something
// else: nothing is lost, and connections are heard of behind it. manyMessages are more than wait
// for the shim's loop.
const manyMessages = 16

func TestNodeThatSaysMuchIsHeardToTheEnd(t *testing.T) {
	b := newHandedNodeBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin}})
	w, key := b.handedNodeUp(1)
	b.dial(1)
	number := w.given(key)
	for range 3 * manyMessages {
		w.say(`"act":"online"`)
	}
	w.accept(number)
	for range 3 * manyMessages {
		b.took()
	}
	b.awaitHanded(b.has(1, 1))
}

// The socket unit of an instance may be started anew while its process runs: that goes on with its
// connections.
func TestNodeGoesOnWhenItsInstanceJoinsAgain(t *testing.T) {
	b := newHandedNodeBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin}})
	w, key := b.handedNodeUp(1)
	b.joinHanded(1)
	b.socket(1, "running")
	b.settled()
	b.dial(1)
	w.accept(w.given(key))
	b.awaitHanded(b.has(1, 1))
	w.conn.Close()
	b.took()
	if b.inRing(1) {
		t.Error("its end is not noticed")
	}
}

// What a process does not take goes to another one.
func TestNodeThatDoesNotTakeAConnectionLosesNone(t *testing.T) {
	for what, lose := range map[string]func(w *worker, number int){
		"refused": func(w *worker, number int) {
			w.raw(`{"cmd":"NODE_HANDLE_ACK"}`)
			w.say(fmt.Sprintf(`"ack":%d,"accepted":false`, number))
		},
		"not received": func(w *worker, number int) { w.raw(`{"cmd":"NODE_HANDLE_NACK"}`) },
		"ended":        func(w *worker, number int) { w.conn.Close() },
		"dropped":      func(w *worker, number int) {},
	} {
		t.Run(what, func(t *testing.T) {
			b := newHandedNodeBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin}})
			one, key1 := b.handedNodeUp(1)
			b.dial(1)
			number := one.given(key1)
			two, key2 := b.handedNodeUp(2)
			unix.Close(one.fds[0])
			lose(one, number)
			switch what {
			case "ended":
				b.took()
			case "dropped":
				b.drop(b.instances[1])
				if _, err := io.Copy(io.Discard, one); err != nil {
					t.Errorf("its channel does not end: %v", err)
				}
			}
			two.accept(two.given(key2))
			b.awaitHanded(b.has(2, 1))
		})
	}
}

// A process that closes its server gets nothing more, and still answers what it was given.
func TestHandedNodeThatClosesItsServerIsOffTheRing(t *testing.T) {
	b := newHandedNodeBench(t, Options{Settings: control.Settings{Strategy: balance.RoundRobin}})
	one, key1 := b.handedNodeUp(1)
	b.dial(1)
	number := one.given(key1)
	one.say(fmt.Sprintf(`"act":"close","key":%q`, key1))
	b.took()
	if b.inRing(1) {
		t.Error("an instance without a server is on the ring")
	}
	if st := b.traffic(1); st.Waiting != 1 {
		t.Errorf("what was given before it closed: %+v", st)
	}
	one.accept(number)
	b.awaitHanded(b.has(1, 1))
}
