package steer

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/cgroup"
	"github.com/unitgen/unitgen/internal/needs"
)

// ownCgroup opens the cgroup v2 directory of the test process, in which its listeners are made.
func ownCgroup(t *testing.T) int {
	t.Helper()
	needRoot(t)
	group, err := cgroup.Own()
	if err == nil {
		fd, err := unix.Open(cgroup.Dir(group), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	needs.Missing(t, "there is no cgroup v2: %v", err)
	return -1
}

func keepNoCounter(Counter) error { return nil }

// counted makes a group that picks by least connections.
func (s *site) counted(store func(Counter) error) *Group {
	s.t.Helper()
	g, err := New(s.listeners[0], func(Maps) error { return nil })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { g.Close() })
	if err := g.Pick(balance.LeastConnections); err == nil {
		s.t.Fatal("least connections without counting: no error")
	}
	if err := g.Count(ownCgroup(s.t), store); err != nil {
		s.t.Fatal(err)
	}
	for i, fd := range s.listeners[1:] {
		if err := g.Put(i+1, fd); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := g.Pick(balance.LeastConnections); err != nil {
		s.t.Fatal(err)
	}
	return g
}

// opens waits until the counts are want, as a connection that was reset is uncounted in the
// kernel's own time.
func opens(t *testing.T, g *Group, want ...uint64) {
	t.Helper()
	var got []uint64
	defer func() {
		if t.Failed() {
			t.Logf("open connections: got %v, want %v", got, want)
		}
	}()
	eventually(t, fmt.Sprintf("open connections are %v", want), func() bool {
		got = got[:0]
		for i := range want {
			got = append(got, g.Open(i+1))
		}
		return fmt.Sprint(got) == fmt.Sprint(want)
	})
}

func TestLeastConnections(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "::1", "::"} {
		t.Run(address, func(t *testing.T) {
			ownCgroup(t)
			s := newSite(t, address, 3)
			g := s.counted(keepNoCounter)
			setRing(t, g, ring(3)...)
			clients := s.dial(30)
			opens(t, g, 10, 10, 10)
			// Those of slot 1 end; it gets the next ones until all are even, and then they take
			// turns.
			for i := 0; i < 30; i += 3 {
				unix.Shutdown(clients[i], unix.SHUT_RDWR)
			}
			accepted := s.acceptAll(1)
			for _, c := range accepted {
				unix.Close(c)
			}
			opens(t, g, 0, 10, 10)
			s.dial(5)
			opens(t, g, 5, 10, 10)
			s.dial(11)
			opens(t, g, 12, 12, 12)
		})
	}
}

// acceptAll accepts what waits at one listener.
func (s *site) acceptAll(i int) []int {
	var all []int
	for {
		c, _, err := unix.Accept4(s.listeners[i], unix.SOCK_CLOEXEC)
		if err != nil {
			return all
		}
		all = append(all, c)
	}
}

func TestLeastConnectionsWeights(t *testing.T) {
	ownCgroup(t)
	s := newSite(t, "127.0.0.1", 3)
	g := s.counted(keepNoCounter)
	setRing(t, g, 1, 2, 1, 3)
	if got := fmt.Sprint(g.Ring()); got != "[1 1 2 3]" {
		t.Errorf("ring read back: %s", got)
	}
	s.dial(40)
	opens(t, g, 20, 10, 10)
	setRing(t, g, 2, 3)
	s.dial(4)
	opens(t, g, 20, 12, 12)
	if err := g.Pick(balance.RoundRobin); err != nil {
		t.Fatal(err)
	}
	setRing(t, g, 1)
	s.dial(3)
	opens(t, g, 23, 12, 12)
}

func TestLeastConnectionsOfMany(t *testing.T) {
	ownCgroup(t)
	const members = maxScan + 6
	s := newSite(t, "127.0.0.1", members)
	g := s.counted(keepNoCounter)
	setRing(t, g, ring(members)...)
	s.dial(5 * members)
	total, most := uint64(0), uint64(0)
	for slot := 1; slot <= members; slot++ {
		total += g.Open(slot)
		most = max(most, g.Open(slot))
	}
	// Two random choices keep the most loaded within a few of the mean; one would reach twice the
	// mean and more.
	if total != 5*members || most > 8 {
		t.Errorf("%d connections, at most %d on one of %d members", total, most, members)
	}
}

func TestCountSurvivesAdoption(t *testing.T) {
	ownCgroup(t)
	s := newSite(t, "127.0.0.1", 2)
	var kept Counter
	g := s.counted(func(c Counter) error {
		var err error
		if kept.Marks, err = unix.FcntlInt(uintptr(c.Marks), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return err
		}
		kept.Link, err = unix.FcntlInt(uintptr(c.Link), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	var v vault
	if err := v.store(g.Maps()); err != nil {
		t.Fatal(err)
	}
	setRing(t, g, 1, 2)
	s.dial(4)
	closeGroup(t, g)
	s.dial(4)

	g, err := Adopt(s.listeners[0], v.maps, balance.RoundRobin)
	if err != nil {
		t.Fatal(err)
	}
	s.t.Cleanup(func() { g.Close() })
	if err := g.AdoptCount(kept); err != nil {
		t.Fatal(err)
	}
	if err := g.Pick(balance.LeastConnections); err != nil {
		t.Fatal(err)
	}
	opens(t, g, 4, 4)
	third := s.add()
	if err := g.Put(third, s.listeners[third]); err != nil {
		t.Fatal(err)
	}
	setRing(t, g, 1, 2, 3)
	s.dial(4)
	opens(t, g, 4, 4, 4)
}

// A burst of connection requests of which none has completed its handshake must not all go to the
// member that had the fewest when it began.
func TestLeastConnectionsUnderSYNBurst(t *testing.T) {
	ownCgroup(t)
	s := newSite(t, "127.0.0.1", 4)
	g := s.counted(keepNoCounter)
	setRing(t, g, 1, 2, 3)
	s.dial(3)
	opens(t, g, 1, 1, 1, 0)
	setRing(t, g, ring(4)...)
	const burst = 41
	sendSYNs(t, s.address, burst)
	picked := func() []uint64 {
		var all []uint64
		for slot := 1; slot <= 4; slot++ {
			all = append(all, g.Steered(slot))
		}
		return all
	}
	eventually(t, "all requests are steered", func() bool {
		sum := uint64(0)
		for _, n := range picked() {
			sum += n
		}
		return sum == burst+3
	})
	// 11 each, but for a reservation window that ends just now.
	if got := picked(); slices.Max(got)-slices.Min(got) > 2 {
		t.Errorf("steered: %v, want 11 each", got)
	}
}

// sendSYNs sends n connection requests from addresses of which nobody answers, so that none
// completes.
func sendSYNs(t *testing.T, to netip.AddrPort, n int) {
	t.Helper()
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(raw)
	for i := range n {
		// The source is this host as well: its answer finds no socket, and the reset that follows
		// ends a request which has been steered by then.
		packet := synPacket([4]byte{127, 9, 0, byte(i + 1)}, to)
		if err := unix.Sendto(raw, packet, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
			t.Fatal(err)
		}
	}
}

func synPacket(from [4]byte, to netip.AddrPort) []byte {
	dst := to.Addr().As4()
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp[0:], 40000)
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	tcp[12] = 5 << 4
	tcp[13] = tcpSYN
	binary.BigEndian.PutUint16(tcp[14:], 1024)
	pseudo := append(append(append([]byte{}, from[:]...), dst[:]...), 0, unix.IPPROTO_TCP, 0, 20)
	binary.BigEndian.PutUint16(tcp[16:], checksum(append(pseudo, tcp...)))
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_TCP
	copy(ip[12:], from[:])
	copy(ip[16:], dst[:])
	return append(ip, tcp...) // the kernel fills in length and checksum of the IP header
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
