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
	needBPF(t)
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

// needBPF skips where programs cannot be loaded, unless the run must be complete.
func needBPF(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("UNITGEN_CI") == "1" {
		t.Fatal("must run as root: loading a BPF program needs CAP_BPF")
	}
	t.Skip("needs root: loading a BPF program needs CAP_BPF")
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
		if counts[1].Open == 0 {
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
	counts := map[int]sockdiag.Stat{
		0: {Busy: 1, Queued: 50, Unsure: 1, Waiting: 2}, 1: {Busy: 10, Queued: 5, Unsure: 2, Waiting: 1}, 2: {Busy: 100, Waiting: 3},
	}
	if got := held(1, counts); got.Busy != 11 || got.Queued != 5 || got.Unsure != 3 || got.Waiting != 2 {
		t.Errorf("%+v; want 11 busy, 5 queued, 3 unsure, 2 waiting", got)
	}
}
