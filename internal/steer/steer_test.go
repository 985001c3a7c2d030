package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/needs"
	"github.com/unitgen/unitgen/internal/sock"
)

// needRoot skips a test that loads BPF programs when it may not; in CI that is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getenv(childEnv) != "bpf" {
		needs.Root(t, "loading a BPF program takes CAP_BPF")
	}
}

// site is one address with its listeners: parking at 0, instances from 1. They are raw sockets, as
// package net would make MPTCP ones and set their flags.
type site struct {
	t         *testing.T
	address   netip.AddrPort
	listeners []int
}

// newSite opens a parking listener and n more on a free port of address, which "[::]" makes
// dual-stack.
func newSite(t *testing.T, address string, n int) *site {
	t.Helper()
	checkDescriptors(t)
	s := &site{t: t, address: netip.AddrPortFrom(netip.MustParseAddr(address), 0)}
	// A socket that is bound but does not listen keeps the port: a listener bound to port 0 would
	// lose it in a rescue.
	holder := bound(t, s.address)
	l := nameOf(t, holder)
	s.address = l
	for range n + 1 {
		s.add()
	}
	unix.Close(holder)
	t.Cleanup(func() {
		for i := range s.listeners {
			s.close(i)
		}
	})
	return s
}

// add opens one more listener and returns its index.
func (s *site) add() int {
	fd := bound(s.t, s.address)
	if err := unix.Listen(fd, 256); err != nil {
		s.t.Fatalf("listen: %v", err)
	}
	s.listeners = append(s.listeners, fd)
	return len(s.listeners) - 1
}

func (s *site) close(i int) {
	if s.listeners[i] >= 0 {
		unix.Close(s.listeners[i])
		s.listeners[i] = -1
	}
}

// group makes a steered group of the site, closed when the test ends; the instances are in slots
// but not on the ring.
func (s *site) group() *Group {
	s.t.Helper()
	g, err := New(s.listeners[0], func(Maps) error { return nil })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { g.Close() })
	for i := range s.listeners[1:] {
		if err := g.Put(i+1, s.listeners[i+1]); err != nil {
			s.t.Fatal(err)
		}
	}
	return g
}

// queues returns how many connections wait at each listener.
func (s *site) queues() []int {
	s.t.Helper()
	var all []int
	for _, fd := range s.listeners {
		if fd < 0 {
			all = append(all, 0)
			continue
		}
		queued, _, err := Queue(fd)
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, queued)
	}
	return all
}

// expect compares the accept queues with want.
func (s *site) expect(want ...int) {
	s.t.Helper()
	if got := s.queues(); fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Fatalf("accept queues: got %v, want %v", got, want)
	}
}

// empty accepts and closes all that waits at every listener, and returns how many that were.
func (s *site) empty() int {
	n := 0
	for _, fd := range s.listeners {
		for fd >= 0 {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err != nil {
				break
			}
			unix.Close(c)
			n++
		}
	}
	return n
}

// dial opens n connections to the site, closed when the test ends; each is established when dial
// returns.
func (s *site) dial(n int) []int {
	s.t.Helper()
	to := s.address
	switch to.Addr() {
	case netip.IPv4Unspecified():
		to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.Port())
	case netip.IPv6Unspecified():
		to = netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())
	}
	return s.dialTo(to, n)
}

func (s *site) dialTo(to netip.AddrPort, n int) []int {
	s.t.Helper()
	var all []int
	for range n {
		fd, err := connect(to)
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, fd)
		s.t.Cleanup(func() { unix.Close(fd) })
	}
	return all
}

func connect(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(family(to), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// A client that closes first would leave its port in TIME_WAIT.
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 5})
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	err = unix.EINTR
	for err == unix.EINTR { // with a time-out connect is not restarted
		err = unix.Connect(fd, sock.Sockaddr(to))
	}
	if err != nil && err != unix.EISCONN {
		unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func bound(t *testing.T, a netip.AddrPort) int {
	t.Helper()
	fd, err := unix.Socket(family(a), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		t.Fatal(err)
	}
	if a.Addr().Is6() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, sock.Sockaddr(a)); err != nil {
		t.Fatalf("bind %v: %v", a, err)
	}
	return fd
}

func nameOf(t *testing.T, fd int) netip.AddrPort {
	t.Helper()
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := name.(*unix.SockaddrInet4); ok {
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	}
	a := name.(*unix.SockaddrInet6)
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
}

// checkDescriptors fails the test if it leaves more descriptors open than it found.
func checkDescriptors(t *testing.T) {
	// The runtime opens its poller's descriptors at the first use, and keeps them.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	before := countDescriptors(t)
	t.Cleanup(func() {
		if after := countDescriptors(t); after != before {
			t.Errorf("descriptors: %d before, %d after", before, after)
		}
	})
}

func countDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// ring returns slots 1 to n.
func ring(n int) []uint16 {
	r := make([]uint16, n)
	for i := range r {
		r[i] = uint16(i + 1)
	}
	return r
}

func setRing(t *testing.T, g *Group, r ...uint16) {
	t.Helper()
	if err := g.SetRing(r); err != nil {
		t.Fatal(err)
	}
}

// eventually asks until ok, for work that the kernel does in its own time.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
