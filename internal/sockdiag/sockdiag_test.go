package sockdiag

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/cgroup"
	"github.com/unitgen/unitgen/internal/needs"
	"github.com/unitgen/unitgen/internal/sock"
)

// stat counts. Waiting, which grows with time, is left out.
func stat(t *testing.T, c *Conn, f Filter) Stat {
	t.Helper()
	st, err := c.Count(f)
	if err != nil {
		t.Fatal(err)
	}
	st.Waiting = 0
	return st
}

func TestCountStates(t *testing.T) {
	c := open(t)
	ln := listen(t, "tcp4", "127.0.0.1:0")
	f := Filter{Ports: []uint16{port(ln)}}
	want := func(open, queued int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d open, %d queued, last %+v", open, queued, stat(t, c, f)), func() bool {
			st := stat(t, c, f)
			return st.Open == open && st.Queued == queued
		})
	}
	want(0, 0)
	var clients, servers []net.Conn
	for range 5 {
		clients = append(clients, dial(t, ln, "tcp4"))
	}
	want(5, 5)
	for range 3 {
		servers = append(servers, accept(t, ln))
	}
	want(5, 2)
	for len(servers) < 5 {
		servers = append(servers, accept(t, ln))
	}
	want(5, 0)

	// The queue keeps the order, so that the sockets of one index belong together.
	clients[0].Close() // CLOSE_WAIT on our side: open until the instance closes
	want(5, 0)
	servers[0].Close()
	want(4, 0)
	servers[1].(*net.TCPConn).CloseWrite() // FIN_WAIT: the instance has said its last byte
	want(3, 0)
	servers[2].Close()
	want(2, 0)
	if err := servers[3].(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	servers[3].Close() // reset
	want(1, 0)
}

func TestCountBothFamilies(t *testing.T) {
	ln, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		needs.Missing(t, "IPv6 is off: %v", err)
	}
	t.Cleanup(func() { ln.Close() })
	c := open(t)
	only4 := listen(t, "tcp4", "127.0.0.1:0")
	for _, conn := range []struct {
		ln      net.Listener
		network string
	}{{ln, "tcp4"}, {ln, "tcp6"}, {only4, "tcp4"}} {
		dial(t, conn.ln, conn.network)
		accept(t, conn.ln)
	}
	if st := stat(t, c, Filter{Ports: []uint16{port(ln), port(only4)}}); st.Open != 3 {
		t.Errorf("got %+v, want 3 open", st)
	}
}

func TestFilterPorts(t *testing.T) {
	c := open(t)
	var ports []uint16
	for range MaxPorts {
		ln := listen(t, "tcp4", "127.0.0.1:0")
		ports = append(ports, port(ln))
		dial(t, ln, "tcp4")
		accept(t, ln)
	}
	for _, n := range []int{1, 2, 3, MaxPorts} {
		if st := stat(t, c, Filter{Ports: ports[:n]}); st.Open != n {
			t.Errorf("%d ports: got %+v", n, st)
		}
		if st := stat(t, c, Filter{Ports: ports[MaxPorts-n:]}); st.Open != n {
			t.Errorf("last %d ports: got %+v", n, st)
		}
		list, err := c.Listeners(ports[:n])
		if err != nil || len(list) != n {
			t.Errorf("%d ports: %d listeners, %v", n, len(list), err)
		}
		// A cgroup that no socket has, in front of each length of chain.
		if st := stat(t, c, Filter{Ports: ports[:n], Cgroup: 1 << 60}); st.Open != 0 {
			t.Errorf("%d ports of no cgroup: got %+v", n, st)
		}
	}
	for _, bad := range [][]uint16{nil, {0}, make([]uint16, MaxPorts+1)} {
		if _, err := c.Count(Filter{Ports: bad}); err == nil {
			t.Errorf("%d ports: no error", len(bad))
		}
	}
}

func TestListeners(t *testing.T) {
	c := open(t)
	ln := listen(t, "tcp4", "127.0.0.1:0").(*net.TCPListener)
	raw, err := ln.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var cookie uint64
	var cerr error
	if err := raw.Control(func(fd uintptr) { cookie, cerr = sock.Cookie(int(fd)) }); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	dial(t, ln, "tcp4")
	dial(t, ln, "tcp4")
	list, err := c.Listeners([]uint16{port(ln)})
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Cookie != cookie || list[0].Port != port(ln) || list[0].Queued != 2 || list[0].Backlog < 2 {
		t.Fatalf("got %+v, want cookie %d, port %d, 2 queued", list, cookie, port(ln))
	}
	stats, err := CountBy(c, Filter{Ports: []uint16{port(ln)}}, byCgroup)
	if err != nil {
		t.Fatal(err)
	}
	if got := stats[list[0].Cgroup]; got.Open != 2 || len(stats) != 1 {
		t.Errorf("cgroup of the listener: %v, want 2 open in %d", stats, list[0].Cgroup)
	}
}

// child is a server in a cgroup of its own, as PID 1's listeners are.
type child struct {
	t     *testing.T
	addr  string
	id    uint64
	stdin io.Writer
	out   *bufio.Scanner
}

func startChild(t *testing.T, name string) *child {
	t.Helper()
	self, err := cgroup.Own()
	if err != nil {
		needs.Missing(t, "no cgroup v2: %v", err)
	}
	dir := cgroup.Dir(filepath.Join(self, name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		needs.Missing(t, "cannot make a cgroup: %v", err)
	}
	t.Cleanup(func() {
		eventually(t, "remove "+dir, func() bool { return os.Remove(dir) == nil })
	})
	fd, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), holdEnv+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		needs.Missing(t, "cannot start a process in a cgroup: %v", err)
	}
	c := &child{t: t, stdin: stdin, out: bufio.NewScanner(stdout)}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	c.addr = c.line()
	// As ss(8) finds it: the inode number equals it on 64-bit machines only.
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
	if err != nil || handle.Size() != 8 {
		t.Fatalf("find number of %s: %d bytes, %v", dir, handle.Size(), err)
	}
	c.id = binary.NativeEndian.Uint64(handle.Bytes())
	return c
}

func (c *child) line() string {
	c.t.Helper()
	if !c.out.Scan() {
		c.t.Fatal("child ended")
	}
	return c.out.Text()
}

func (c *child) connect(n, accepted int) (port uint16) {
	c.t.Helper()
	for range n {
		conn, err := net.Dial("tcp4", c.addr)
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { conn.Close() })
		port = uint16(conn.RemoteAddr().(*net.TCPAddr).Port)
	}
	for range accepted {
		fmt.Fprintln(c.stdin, "accept")
		c.line()
	}
	return port
}

func byCgroup(c Connection, keys []uint64) []uint64 { return append(keys, c.Cgroup) }

func TestCountByCgroup(t *testing.T) {
	a, b := startChild(t, fmt.Sprintf("sockdiag-a-%d", os.Getpid())), startChild(t, fmt.Sprintf("sockdiag-b-%d", os.Getpid()))
	ports := []uint16{a.connect(5, 3), b.connect(2, 2)}
	c := open(t)
	stats, err := CountBy(c, Filter{Ports: ports}, byCgroup)
	if err != nil {
		t.Fatal(err)
	}
	if len(stats) != 2 || stats[a.id].Open != 5 || stats[a.id].Queued != 2 || stats[b.id].Open != 2 || stats[b.id].Queued != 0 {
		t.Errorf("got %+v; want 5 open, 2 queued in %d and 2 open in %d", stats, a.id, b.id)
	}
	for id, want := range stats {
		// Only the counts: a connection may have become quiet in between.
		if got := stat(t, c, Filter{Ports: ports, Cgroup: id}); got.Open != want.Open || got.Queued != want.Queued {
			t.Errorf("cgroup %d: got %+v, want %+v", id, got, want)
		}
	}
	if got := stat(t, c, Filter{Ports: ports}); got.Open != 7 {
		t.Errorf("all: got %+v, want 7 open", got)
	}
}

// TestLeftover: a shim killed in the middle of a dump leaves it to the next one.
func TestLeftover(t *testing.T) {
	c := open(t)
	ln := listen(t, "tcp4", "127.0.0.1:0")
	// More than one datagram of the first 8 KiB.
	for range 60 {
		dial(t, ln, "tcp4")
	}
	f := Filter{Ports: []uint16{port(ln)}}
	req, err := dumpRequest(openStates, infoBit, f.Ports, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The same number as the next dump will have: the worst case.
	setSeq(req, c.seq+1)
	if err := send(c.fd, req); err != nil {
		t.Fatal(err)
	}
	if err := send(c.fd, req); !errors.Is(err, unix.EBUSY) && err != nil {
		t.Fatal(err)
	}
	if st := stat(t, c, f); st.Open != 60 {
		t.Errorf("got %+v, want 60", st)
	}
	// An error in the middle of a dump leaves nothing behind.
	stop := errors.New("stop")
	if err := c.dump(bytes.Clone(req), func(*socket) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
	if _, _, err := receive(c.fd, c.buf); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("after an error in a dump: got %v, want an empty queue", err)
	}
}

func TestConcurrentCounts(t *testing.T) {
	c := open(t)
	ln := listen(t, "tcp4", "127.0.0.1:0")
	dial(t, ln, "tcp4")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if st, err := c.Count(Filter{Ports: []uint16{port(ln)}}); err != nil || st.Open != 1 {
					t.Errorf("got %+v, %v", st, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestWrongDescriptor(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if _, err := New(fds[0]); err == nil || !strings.Contains(err.Error(), "not an inet-diag netlink socket") {
		t.Errorf("New: %v", err)
	}
	if _, err := NewWatch(fds[0]); err == nil {
		t.Error("NewWatch: no error")
	}
	if _, err := New(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("New(-1): %v", err)
	}
}

func TestClosed(t *testing.T) {
	fd, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Count(Filter{Ports: []uint16{1}}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Count: %v", err)
	}
	if err := c.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Close: %v", err)
	}
}

func BenchmarkCountByCgroup(b *testing.B) {
	fd, err := Open()
	if err != nil {
		b.Fatal(err)
	}
	c, err := New(fd)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	const conns = 400
	for range conns {
		conn, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		srv, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer srv.Close()
	}
	for _, bench := range []struct {
		name string
		port uint16
	}{{"matching", port(ln)}, {"others", 1}} {
		b.Run(fmt.Sprintf("%s-%d", bench.name, conns), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := CountBy(c, Filter{Ports: []uint16{bench.port}}, byCgroup); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
