package steer

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
)

// clients are n addresses of the loopback network.
func clients(n int) []netip.Addr {
	var all []netip.Addr
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}))
	}
	return all
}

// dialFrom opens one connection from each client's address to an IPv4 address of the site.
func (s *site) dialFrom(from ...netip.Addr) {
	s.t.Helper()
	to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(s.address.Port())}
	for _, a := range from {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { unix.Close(fd) })
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			s.t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: a.As4()}); err != nil {
			s.t.Fatalf("bind %v: %v", a, err)
		}
		if err := unix.Connect(fd, to); err != nil {
			s.t.Fatalf("connect from %v: %v", a, err)
		}
	}
}

// placed accepts all that waits and returns the listener of each client; one that is at two is a
// failure.
func (s *site) placed() map[netip.Addr]int {
	s.t.Helper()
	at := make(map[netip.Addr]int)
	for i, fd := range s.listeners {
		for fd >= 0 {
			conn, from, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if err == unix.EAGAIN {
				break
			}
			if err != nil {
				s.t.Fatal(err)
			}
			unix.Close(conn)
			a := netip.Addr{}
			switch from := from.(type) {
			case *unix.SockaddrInet4:
				a = netip.AddrFrom4(from.Addr)
			case *unix.SockaddrInet6:
				a = netip.AddrFrom16(from.Addr).Unmap()
			}
			if was, twice := at[a]; twice && was != i {
				s.t.Errorf("client %v is at %d and at %d", a, was, i)
			}
			at[a] = i
		}
	}
	return at
}

// hashed makes a group that picks by the client's address.
func (s *site) hashed() *Group {
	s.t.Helper()
	g := s.group()
	if err := g.Pick(balance.SourceHash); err != nil {
		s.t.Fatal(err)
	}
	return g
}

// table is where the table for a ring sends a client.
func table(ring []uint16, client netip.Addr) int {
	return int(entries(balance.SourceHash, ring)[bucket(client, MaxRing)])
}

// A client's connections all go to one instance, and to the same one over IPv4 and a dual-stack
// listener; it is the one that the table has, so that a test of the table is one of the program.
func TestSourceHash(t *testing.T) {
	needRoot(t)
	all := clients(200)
	for _, address := range []string{"127.0.0.1", "0.0.0.0", "::"} {
		t.Run(address, func(t *testing.T) {
			s := newSite(t, address, 4)
			g := s.hashed()
			setRing(t, g, ring(4)...)
			s.dialFrom(append(all, all...)...)
			count := make(map[int]int)
			for client, at := range s.placed() {
				if want := table(ring(4), client); at != want {
					t.Errorf("client %v is at %d, want %d", client, at, want)
				}
				count[at]++
			}
			for slot := 1; slot <= 4; slot++ {
				if count[slot] < 25 || count[slot] > 75 { // 50 within four standard deviations
					t.Errorf("clients by slot: %v", count)
				}
			}
		})
	}
}

func TestSourceHashOverIPv6(t *testing.T) {
	needRoot(t)
	for _, address := range []string{"::1", "::"} {
		s := newSite(t, address, 4)
		g := s.hashed()
		setRing(t, g, ring(4)...)
		s.dial(10)
		want := table(ring(4), netip.IPv6Loopback())
		if got := s.queues(); got[want] != 10 {
			t.Errorf("%s: accept queues %v, want all at %d", address, got, want)
		}
	}
}

// When an instance leaves, only its clients move, those that wait too; when it is back, they are.
func TestSourceHashMovesLittle(t *testing.T) {
	needRoot(t)
	for _, address := range []string{"127.0.0.1", "::"} {
		t.Run(address, func(t *testing.T) {
			s := newSite(t, address, 4)
			g := s.hashed()
			all := clients(200)
			setRing(t, g, ring(4)...)
			s.dialFrom(all...)
			before := s.placed()

			s.dialFrom(all...)
			setRing(t, g, 1, 3, 4)
			waited := s.queues()[2]
			if moved, err := g.Rescue(2, s.listeners[2]); err != nil || moved != waited || waited == 0 {
				t.Fatalf("rescue: %d of %d, %v", moved, waited, err)
			}
			s.dialFrom(all...)
			for client, at := range s.placed() { // once more: those that waited are where those are that came later
				if before[client] != 2 && at != before[client] || at != table([]uint16{1, 3, 4}, client) {
					t.Errorf("client %v went from %d to %d", client, before[client], at)
				}
			}
			setRing(t, g, ring(4)...)
			s.dialFrom(all...)
			if after := s.placed(); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("clients are elsewhere after the instance is back")
			}
		})
	}
}

func TestSourceHashIsAdopted(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 4)
	var v vault
	g := s.stored(&v)
	if err := g.Pick(balance.SourceHash); err != nil {
		t.Fatal(err)
	}
	weighted := []uint16{1, 1, 1, 2, 3}
	setRing(t, g, weighted...)
	tabled := g.Ring()
	closeGroup(t, g)
	g, err := Adopt(s.listeners[0], v.maps, balance.SourceHash)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if !slices.Equal(g.Ring(), tabled) {
		t.Error("the table is another one after adoption")
	}
	s.dialFrom(clients(100)...)
	for client, at := range s.placed() {
		if want := table(weighted, client); at != want {
			t.Errorf("client %v is at %d, want %d", client, at, want)
		}
	}
	// Another strategy has a ring again.
	if err := g.Pick(balance.RoundRobin); err != nil {
		t.Fatal(err)
	}
	setRing(t, g, 1, 2)
	s.dial(10)
	s.expect(0, 5, 5, 0, 0)
}

// Without instances clients wait at the parking listener; closed it refuses them.
func TestSourceHashParksAndRefuses(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 2)
	g := s.hashed()
	all := clients(20)
	s.dialFrom(all...)
	s.expect(20, 0, 0)
	setRing(t, g, 1, 2)
	if moved, err := g.Rescue(Parking, s.listeners[0]); err != nil || moved != 20 {
		t.Fatalf("rescue: %d, %v", moved, err)
	}
	for client, at := range s.placed() {
		if want := table([]uint16{1, 2}, client); at != want {
			t.Errorf("client %v is at %d, want %d", client, at, want)
		}
	}
	if err := g.Refuse(); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(s.address); !refused(err) {
		t.Errorf("connect to a closed group: %v", err)
	}
}

func TestRandomTwo(t *testing.T) {
	ownCgroup(t)
	s := newSite(t, "127.0.0.1", 3)
	g := s.counted(keepNoCounter)
	if err := g.Pick(balance.RandomTwo); err != nil {
		t.Fatal(err)
	}
	setRing(t, g, 1, 1, 2, 3)
	if got := fmt.Sprint(g.Ring()); got != "[1 1 2 3]" {
		t.Errorf("ring: %s", got)
	}
	s.dial(200)
	opens(t, g, g.Open(1), g.Open(2), g.Open(3))
	got := s.queues()
	// Of random picks alone the standard deviation would be 7; of the better of two it is about
	// one.
	for i, want := range []int{0, 100, 50, 50} {
		if got[i] < want-12 || got[i] > want+12 {
			t.Errorf("accept queues: %v", got)
		}
	}
	if err := g.Pick(balance.RoundRobin); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(g.Ring()); got != "[1 1 2 3]" {
		t.Errorf("ring after a change of strategy: %s", got)
	}
}

// BenchmarkPrograms is what each program costs at a connection request, by the kernel's own count
// (ns/pick, in which the two readings of the clock that the count takes are contained), with four
// and with 64 instances.
func BenchmarkPrograms(b *testing.B) {
	for _, n := range []int{4, 64} {
		for _, c := range []struct {
			name     string
			strategy balance.Strategy
		}{{"round-robin", balance.RoundRobin}, {"source-hash", balance.SourceHash}, {"random-two", balance.RandomTwo}, {"least-connections", balance.LeastConnections}} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) { benchProgram(b, c.strategy, n) })
		}
	}
}

func benchProgram(b *testing.B, strategy balance.Strategy, n int) {
	g := benchGroup(b)
	name, err := unix.Getsockname(g.parking)
	if err != nil {
		b.Fatal(err)
	}
	var ring []uint16
	var listeners []int
	for slot := 1; slot <= n; slot++ {
		fd := benchListener(b, name)
		if err := g.Put(slot, fd); err != nil {
			b.Fatal(err)
		}
		ring, listeners = append(ring, uint16(slot)), append(listeners, fd)
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Skip(err)
	}
	defer stats.Close()
	g.strategy = strategy
	program, err := loadProgram(strategy, g.slots, g.shared)
	if err != nil {
		b.Fatal(err)
	}
	defer program.Close()
	if err := attach(g.parking, program); err != nil {
		b.Fatal(err)
	}
	if err := g.SetRing(ring); err != nil {
		b.Fatal(err)
	}
	to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: name.(*unix.SockaddrInet4).Port}
	for b.Loop() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			b.Fatal(err)
		}
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			b.Fatal(err)
		}
		if err := unix.Connect(fd, to); err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
		for _, l := range listeners { // whoever has it takes it, so that no queue fills up
			if conn, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC); err == nil {
				unix.Close(conn)
			}
		}
	}
	used, err := program.Stats()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(used.Runtime.Nanoseconds())/float64(used.RunCount), "ns/pick")
}

// bucket returns the position in a table of a client's address, as the program computes it.
func bucket(client netip.Addr, length int) int {
	b := client.As16()
	h := binary.BigEndian.Uint64(b[:8]) * hashFirst
	h ^= h >> 32
	h = (h + binary.BigEndian.Uint64(b[8:])) * hashFirst
	h ^= h >> 33
	h *= hashSecond
	h ^= h >> 33
	return int(h % uint64(length))
}
