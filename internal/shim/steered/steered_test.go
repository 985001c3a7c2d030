package steered

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/needs"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/sockdiag"
)

// bench is a path around listeners of its own, and the shim's loop.
type bench struct {
	*Path
	t         *testing.T
	address   *unix.SockaddrInet4
	listeners map[int]int // instance to the descriptor that its program would have
}

func (b *bench) Do(_ context.Context, f func() error) error { return f() }
func (b *bench) Probed(int, time.Time)                      {}
func (b *bench) Harmed([]path.Harm)                         {}

func newBench(t *testing.T, diag ...int) *bench {
	t.Helper()
	needs.Root(t, "loading a BPF program takes CAP_BPF")
	b := &bench{t: t, address: &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, listeners: make(map[int]int)}
	b.listenParking()
	log := slog.New(slog.DiscardHandler)
	var err error
	b.Path, err = Open(Options{
		App: "app", Parking: []int{b.dup(b.listeners[path.Parking])}, Diag: diag,
		Store: path.NewStore("app", &activation.Notifier{}, nil, log), Log: log,
		Cgroup: func(int) (string, error) { return "", errors.New("nobody to ask") },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// listenParking makes the public listener, on a free port.
func (b *bench) listenParking() {
	b.t.Helper()
	b.listeners[path.Parking] = b.listen()
	name, err := unix.Getsockname(b.listeners[path.Parking])
	if err != nil {
		b.t.Fatal(err)
	}
	b.address = name.(*unix.SockaddrInet4)
}

// text is the public address.
func (b *bench) text() string { return fmt.Sprintf("127.0.0.1:%d", b.address.Port) }

// listen makes a member of the group that does not block.
func (b *bench) listen() int {
	b.t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { unix.Close(fd) })
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err == nil {
		if err = unix.Bind(fd, b.address); err == nil {
			err = unix.Listen(fd, 128)
		}
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return fd
}

func (b *bench) dup(fd int) int {
	b.t.Helper()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	return dup
}

func (b *bench) join(number int) {
	b.t.Helper()
	b.listeners[number] = b.listen()
	if joined, err := b.Join(number, []int{b.dup(b.listeners[number])}); err != nil || !joined {
		b.t.Fatalf("join: %v, %v", joined, err)
	}
}

func (b *bench) ring(numbers ...uint16) {
	b.t.Helper()
	if err := b.SetRing(numbers); err != nil {
		b.t.Fatal(err)
	}
}

// dial makes n connections that stay open until the test ends.
func (b *bench) dial(n int) {
	b.t.Helper()
	for range n {
		conn, err := net.Dial("tcp", b.text())
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { conn.Close() })
	}
}

// accept takes what waits at an instance.
func (b *bench) accept(number int) (n int) {
	b.t.Helper()
	for {
		conn, _, err := unix.Accept4(b.listeners[number], unix.SOCK_CLOEXEC)
		if err == unix.EAGAIN {
			return n
		}
		if err != nil {
			b.t.Fatal(err)
		}
		n++
		b.t.Cleanup(func() { unix.Close(conn) })
	}
}

// What others may hold after a move are the connections that were moved, until these close. The
// instance's own do not count, neither old ones nor new ones, which never end under steady load.
func TestMovedConnectionsAreKnownOneByOne(t *testing.T) {
	fd, err := sockdiag.Open()
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, fd)
	b.join(1)
	b.join(2)
	b.ring(1, 2)
	b.dial(4)
	if one, two := b.accept(1), b.accept(2); one != 2 || two != 2 {
		t.Fatalf("%d and %d connections, want 2 and 2", one, two)
	}
	b.dial(2)
	b.accept(2) // as all listeners here are of one cgroup; the other one waits at instance 1
	b.ring(2)
	b.Rescue(1)
	last, _, err := unix.Accept4(b.listeners[2], unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatalf("accept the connection that was moved to instance 2: %v", err)
	}
	t.Cleanup(func() { unix.Close(last) })
	cookie, err := sock.Cookie(last)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when string, wanted map[uint64]bool) {
		t.Helper()
		counts, err := b.count()
		if err != nil {
			t.Fatal(err)
		}
		if counts.byInstance[1].Open == 0 {
			t.Errorf("%s: instance 1 has no connection", when)
		}
		if got := b.moved.cookies; !maps.Equal(got, wanted) {
			t.Errorf("%s: moved are %v, want %v", when, got, wanted)
		}
	}
	expect("after the move", map[uint64]bool{cookie: true})
	b.ring(1, 2)
	b.dial(4)
	b.accept(1)
	b.accept(2)
	expect("when instance 1 is back and has new ones", map[uint64]bool{cookie: true})
	if dup, err := unix.Open("/dev/null", unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	} else if err := unix.Dup3(dup, last, unix.O_CLOEXEC); err != nil { // closes it, and its number stays taken
		t.Fatal(err)
	} else {
		unix.Close(dup)
	}
	expect("when it is closed", map[uint64]bool{})
}

// The next process reads what the last one has written, and nothing else costs it more than a line
// in the journal.
func TestMovedConnectionsOutliveTheShim(t *testing.T) {
	file := func(text []byte) *os.File {
		name := filepath.Join(t.TempDir(), "moved")
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	for _, cookies := range []map[uint64]bool{{}, {7: true, 1 << 40: true}} {
		m := moved{file: file((&moved{cookies: cookies}).encode())}
		if err := m.decode(); err != nil || !maps.Equal(m.cookies, cookies) {
			t.Errorf("%v, %v; want %v", m.cookies, err, cookies)
		}
	}
	for _, text := range [][]byte{nil, {1}, binary.NativeEndian.AppendUint64(nil, 1), binary.NativeEndian.AppendUint64(nil, 1<<60)} {
		m := moved{file: file(text)}
		if err := m.decode(); err == nil || len(m.cookies) > 0 {
			t.Errorf("%v: %v, %v; want an error", text, m.cookies, err)
		}
	}
}

// A listener that waits for data makes a probe look accepted when nobody has taken it.
func TestProbeIsSeenThoughTheListenerWaitsForData(t *testing.T) {
	for _, when := range []string{"before the probe", "after it began"} {
		t.Run(when, func(t *testing.T) {
			b := newBench(t)
			b.join(1)
			b.ring()
			deferAccept := func() {
				if err := unix.SetsockoptInt(b.listeners[1], unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30); err != nil {
					t.Fatal(err)
				}
			}
			if when == "before the probe" {
				deferAccept()
			}
			port := b.probeFrom(1)
			if when != "before the probe" {
				deferAccept()
			}
			b.dialFrom(port)
			queued, again, err := b.unaccepted(b, 1)
			if err != nil || (queued == 0 && !again) {
				t.Errorf("probe that nobody took: %d wait, again %v, %v", queued, again, err)
			}
			if again {
				b.dialFrom(b.probeFrom(1))
			}
			if queued, again, err = b.unaccepted(b, 1); err != nil || queued != 1 || again {
				t.Errorf("then: %d wait, again %v, %v", queued, again, err)
			}
			b.accept(1)
			if queued, again, err = b.unaccepted(b, 1); err != nil || queued != 0 || again {
				t.Errorf("after accept: %d wait, again %v, %v", queued, again, err)
			}
			if is, err := unix.GetsockoptInt(b.listeners[1], unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT); err != nil || is == 0 {
				t.Errorf("TCP_DEFER_ACCEPT after the probe: %d, %v, want it set again", is, err)
			}
		})
	}
}

// probeFrom begins a probe of an instance and returns the descriptor of a socket that has its port.
func (b *bench) probeFrom(number int) int {
	b.t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
		b.t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		b.t.Fatal(err)
	}
	port := uint16(name.(*unix.SockaddrInet4).Port)
	if _, err := b.beginProbe(b, control.ProbeParameters{Instance: number, Address: b.addresses[0].String(), Port: port}, time.Now()); err != nil {
		b.t.Fatal(err)
	}
	return fd
}

func (b *bench) dialFrom(fd int) {
	b.t.Helper()
	if err := unix.Connect(fd, b.address); err != nil {
		b.t.Fatal(err)
	}
}

// While an instance drains, the path ticks when connections have ended, countPause after the last
// count at the earliest. At other times it hears of none.
func TestEndOfAConnectionIsNoticedInADrain(t *testing.T) {
	var diag []int
	for range 2 {
		fd, err := sockdiag.Open()
		if err != nil {
			t.Fatal(err)
		}
		diag = append(diag, fd)
	}
	b := newBench(t, diag...)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }() // ends with ctx, awaited below
	b.join(1)
	b.ring(1)
	b.Drain(1, true)
	if _, err := b.Count(time.Now()); err != nil {
		t.Fatal(err)
	}
	counted := time.Now()
	conn, err := net.Dial("tcp", b.text())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	fd, _, err := unix.Accept4(b.listeners[1], unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	select {
	case <-b.Changed():
		if lasted := time.Since(counted); lasted < countPause-time.Millisecond {
			t.Errorf("ticked %s after a count, want %s at the earliest", lasted, countPause)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the end of a connection was not noticed")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if b.Drain(1, true); b.counter.closed != nil {
		t.Error("it listens for ends of connections after Run")
	}
}

func TestDrainCountsWhatAnInstanceMayHold(t *testing.T) {
	own, anybodys := sockdiag.Stat{Busy: 10, Queued: 5, Unsure: 2, Waiting: 1}, sockdiag.Stat{Busy: 1, Queued: 50, Unsure: 1, Waiting: 2}
	if got := held(own, anybodys); got.Busy != 11 || got.Queued != 5 || got.Unsure != 3 || got.Waiting != 2 {
		t.Errorf("%+v; want 11 busy, 5 queued, 3 unsure, 2 waiting", got)
	}
}

// A connection that is moved while an instance drains is another's, however long it lasts. One that
// was moved before may be this instance's.
func TestDrainWaitsForNothingThatCameLater(t *testing.T) {
	fd, err := sockdiag.Open()
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, fd)
	for number := 1; number <= 3; number++ {
		b.join(number)
	}
	b.ring(2)
	b.Drain(1, true)
	b.dial(1)
	b.ring(3)
	b.Rescue(2)
	if n := b.accept(3); n != 1 {
		t.Fatalf("instance 3 has %d connections, want the one that was moved", n)
	}
	b.ring(2)
	b.Drain(3, true)
	counts, err := b.count()
	if err != nil {
		t.Fatal(err)
	}
	// All listeners here are of one cgroup, so what was not moved is everybody's own.
	own := counts.byInstance[1].Open
	if early, late := counts.held[1].Open-own, counts.held[3].Open-own; early != 0 || late != 1 {
		t.Errorf("a drain from before the move holds %d of the moved connections, one from after it %d; want 0 and 1", early, late)
	}
	b.members[1].before.unplaced--
	if counts, err = b.count(); err != nil || counts.held[1].Open-own != 1 {
		t.Errorf("after the kernel's hash has spread some: %+v, %v; want the moved one too", counts.held[1], err)
	}
	// It is known who has it, and if it is not any drain that begins now waits for it.
	b.Drain(1, false)
	b.Drain(1, true)
	if counts, err = b.count(); err != nil || counts.held[1].Open-own != 0 || counts.held[3].Open-own != 1 {
		t.Errorf("in a drain from after the move: %+v, %v; want the moved one at instance 3 alone", counts.held, err)
	}
	for cookie := range b.moved.cookies {
		if !b.members[1].mayHold(1, cookie, nil, b.unplaced()) {
			t.Errorf("in a drain from after a move that is forgotten instance 1 cannot have connection %#x", cookie)
		}
	}
	if len(b.moved.cookies) != 1 {
		t.Errorf("%d connections have moved, want 1", len(b.moved.cookies))
	}
}
