package shim

import (
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/sockdiag"
)

// What others may hold after a move are the connections that were moved, until these close. The instance's own do not count,
// neither old ones nor new ones, which never end under steady load.
func TestMovedConnectionsAreKnownOneByOne(t *testing.T) {
	fd, err := sockdiag.Open()
	if err != nil {
		t.Fatal(err)
	}
	b := newBenchWith(t, Options{}, Inherited{Diag: []int{fd}})
	t.Cleanup(func() { b.counter.conn.Close() })
	b.up(1)
	b.up(2)
	want(t, "all are accepted", b.connect(4), map[int]int{1: 2, 2: 2})
	b.dial(2)
	acceptAll(t, b.listeners[2]) // as all listeners here are of one cgroup; the other one waits at instance 1
	b.service(1, "deactivating", "stop-post")
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
		if got := b.counter.moved.cookies; !maps.Equal(got, wanted) {
			t.Errorf("%s: moved are %v, want %v", when, got, wanted)
		}
	}
	expect("after the move", map[uint64]bool{cookie: true})
	b.service(1, "active", "running")
	b.connect(4)
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

// The next shim reads what the last one has written, and nothing else costs it more than a line in the journal.
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

// What comes out of the FD store is what it is, whatever its name says: a shim that finds something else under each name lets go
// of it and starts anew.
func TestStoredDescriptorsAreNotBelievedByName(t *testing.T) {
	const first = 900 // of numbers that nothing else gets, so that those which were closed can be told
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	var stored []Stored
	b := newBench(t, Options{}) // for the name of an address
	address := b.addresses[0]
	for _, name := range []string{
		"app@1.socket", "app@0.socket", "app@99999.socket", "app@1.service", "other@1.socket", "", "../x", storedMoved,
		storedNodes + "0", storedNodes + "x", storedChannel + "1", storedChannel + "x", storedHanded + "1", address.storeName("mess"),
		storedSlots, address.storeName(storedSlots) + "0",
	} {
		fd, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, first)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, Stored{Name: name, FD: fd})
	}
	again := newBenchWith(t, Options{}, Inherited{Stored: stored})
	for _, st := range stored {
		if st.Name == storedChannel+"1" {
			continue // of a Node.js program whose instance is gone: it is the app's to answer, and ends with the shim
		}
		if _, err := unix.FcntlInt(uintptr(st.FD), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("descriptor %q is still open: %v", st.Name, err)
		}
	}
	again.up(1)
	want(t, "a shim that found nonsense", again.connect(2), map[int]int{1: 2})
}
