package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
)

func TestSpreadIsExact(t *testing.T) {
	needRoot(t)
	for _, address := range []string{"127.0.0.1", "::1", "0.0.0.0", "::"} {
		t.Run(address, func(t *testing.T) {
			s := newSite(t, address, 4)
			g := s.group()
			setRing(t, g, ring(4)...)
			s.dial(40)
			s.expect(0, 10, 10, 10, 10)
		})
	}
}

func TestDualStackIsOneGroup(t *testing.T) {
	needRoot(t)
	s := newSite(t, "::", 3)
	g := s.group()
	setRing(t, g, ring(3)...)
	for range 15 {
		s.dial(1)
		s.dialTo(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.address.Port()), 1)
	}
	s.expect(0, 10, 10, 10)
}

func TestWeightsAndDrain(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 3)
	g := s.group()
	setRing(t, g, 1, 2, 1, 3, 1)
	s.dial(50)
	s.expect(0, 30, 10, 10)
	setRing(t, g, 2, 3)
	s.dial(20)
	s.expect(0, 30, 20, 20)
	for slot, want := range []uint64{0, 30, 20, 20} {
		if got := g.Steered(slot); got != want {
			t.Errorf("steered to slot %d: got %d, want %d", slot, got, want)
		}
	}
	if got := g.Totals(); got != (Totals{}) {
		t.Errorf("totals: got %+v, want none", got)
	}
}

func TestLongestRing(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 2)
	g := s.group()
	long := make([]uint16, MaxRing)
	for round := range 3 { // each of the two halves, and the first again
		for i := range long {
			long[i] = uint16(1 + (i+round)%2)
		}
		setRing(t, g, long...)
		if got := g.Ring(); fmt.Sprint(got) != fmt.Sprint(long) {
			t.Fatalf("round %d: ring read back differs", round)
		}
		s.dial(10)
	}
	s.expect(0, 15, 15)
	for _, bad := range [][]uint16{{Parking}, {Slots}, make([]uint16, MaxRing+1)} {
		if err := g.SetRing(bad); err == nil {
			t.Errorf("ring of %d entries: no error", len(bad))
		}
	}
}

func TestParkingAndFlush(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 3)
	g := s.group()
	s.dial(90)
	s.expect(90, 0, 0, 0)
	if _, err := g.Rescue(Parking, s.listeners[0]); !errors.Is(err, ErrNowhere) {
		t.Fatalf("rescue with an empty ring: got %v, want %v", err, ErrNowhere)
	}
	setRing(t, g, ring(3)...)
	moved, err := g.Rescue(Parking, s.listeners[0])
	if err != nil || moved != 90 {
		t.Fatalf("rescue: moved %d, %v", moved, err)
	}
	s.expect(0, 30, 30, 30)
	setRing(t, g)
	s.dial(3)
	s.expect(3, 30, 30, 30)
	if got := s.empty(); got != 93 {
		t.Errorf("accepted %d connections, want 93", got)
	}
	if got := g.Totals(); got != (Totals{Migrated: 90}) {
		t.Errorf("totals: got %+v", got)
	}
}

func TestRescueOfStuckInstance(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 3)
	g := s.group()
	setRing(t, g, ring(3)...)
	s.dial(30)
	s.expect(0, 10, 10, 10)
	setRing(t, g, 2, 3)
	moved, err := g.Rescue(1, s.listeners[1])
	if err != nil || moved != 10 {
		t.Fatalf("rescue: moved %d, %v", moved, err)
	}
	s.expect(0, 0, 15, 15)
	if moved, err := g.Rescue(1, s.listeners[1]); err != nil || moved != 0 {
		t.Fatalf("rescue of an empty queue: moved %d, %v", moved, err)
	}
	setRing(t, g, ring(3)...)
	s.dial(9)
	s.expect(0, 3, 18, 18)
	if _, backlog, err := Queue(s.listeners[1]); err != nil || backlog != 256 {
		t.Errorf("backlog after rescue: got %d, %v, want 256", backlog, err)
	}
}

// Of a connection that has moved the group knows where it is.
func TestPlaced(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 3)
	g := s.group()
	setRing(t, g, ring(3)...)
	s.dial(30)
	setRing(t, g, 2, 3)
	if moved, err := g.Rescue(1, s.listeners[1]); err != nil || moved != 10 {
		t.Fatalf("rescue: moved %d, %v", moved, err)
	}
	placed, known := g.Placed(), map[int]int{}
	for _, slot := range []int{2, 3} {
		for range 15 {
			fd, _, err := unix.Accept(s.listeners[slot])
			if err != nil {
				t.Fatal(err)
			}
			cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
			unix.Close(fd)
			if err != nil {
				t.Fatal(err)
			}
			if at, ok := placed.Slot(cookie); ok && at == slot {
				known[slot]++
			} else if ok {
				t.Errorf("a connection at slot %d is placed at %d", slot, at)
			}
		}
	}
	if len(placed) != 10 || known[2] != 5 || known[3] != 5 {
		t.Errorf("%d connections are placed, of those accepted %v, want 5 of each slot", len(placed), known)
	}
}

func TestClosingListenerMigratesItsQueue(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 3)
	g := s.group()
	setRing(t, g, ring(3)...)
	clients := s.dial(30)
	s.close(1)
	s.expect(0, 0, 15, 15)
	for _, c := range clients {
		if err := unix.SetNonblock(c, true); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Read(c, make([]byte, 1)); err != unix.EAGAIN {
			t.Errorf("client of the closed listener: %v, want EAGAIN", err)
		}
	}
	// Its slot is empty now, and still on the ring: nobody is refused and nobody drained is hit.
	s.dial(30)
	if got := s.queues(); got[0] != 0 || got[2]+got[3] != 60 {
		t.Errorf("accept queues with an empty slot on the ring: %v", got)
	}
	// The last ones park.
	s.close(2)
	s.close(3)
	s.expect(60, 0, 0, 0)
	if got := g.Totals(); got.Unplaced != 0 {
		t.Errorf("totals: got %+v, want none unplaced", got)
	}
}

func TestRefuse(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 2)
	g := s.group()
	setRing(t, g, ring(2)...)
	s.dial(4)
	if err := g.Refuse(); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(s.address); !refused(err) {
		t.Errorf("connect while refusing: %v", err)
	}
	setRing(t, g, 2)
	if _, err := connect(s.address); !refused(err) {
		t.Errorf("a new ring ended Refuse: %v", err)
	}
	s.close(1)
	s.expect(0, 0, 4)
	if err := g.Admit(); err != nil {
		t.Fatal(err)
	}
	s.dial(1)
	s.expect(0, 0, 5)
	if got := g.Totals().Refused; got != 2 {
		t.Errorf("refused: got %d, want 2", got)
	}
}

func TestPutErrors(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 2)
	g := s.group()
	if err := g.Put(1, s.listeners[1]); err != nil {
		t.Errorf("put again: %v", err)
	}
	if err := g.Put(3, s.listeners[1]); !errors.Is(err, unix.EBUSY) {
		t.Errorf("put in a second slot: got %v, want EBUSY", err)
	}
	if err := g.Put(Slots, s.listeners[1]); err == nil {
		t.Error("put beyond the slots: no error")
	}
	other := newSite(t, "127.0.0.2", 0)
	if err := g.Put(3, other.listeners[0]); err == nil {
		t.Error("put of another address: no error")
	}
	for range 2 {
		if err := g.Remove(2); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	setRing(t, g, 1, 2)
	s.dial(4)
	s.expect(0, 4, 0)
	if err := g.Put(2, s.listeners[2]); err != nil {
		t.Error(err)
	}
	s.dial(4)
	s.expect(0, 6, 2)
}

func TestDescribeRefuses(t *testing.T) {
	checkDescriptors(t)
	open := func(domain, kind, protocol int) int {
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			t.Fatalf("socket: %v", err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	plain := open(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := unix.Listen(plain, 1); err != nil {
		t.Fatal(err)
	}
	for name, fd := range map[string]int{
		"unix socket":     open(unix.AF_UNIX, unix.SOCK_STREAM, 0),
		"UDP":             open(unix.AF_INET, unix.SOCK_DGRAM, 0),
		"not listening":   open(unix.AF_INET, unix.SOCK_STREAM, 0),
		"no SO_REUSEPORT": plain,
		"bad descriptor":  1 << 20,
	} {
		if _, err := Describe(fd); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
	if _, _, err := Queue(open(unix.AF_INET, unix.SOCK_STREAM, 0)); err == nil {
		t.Error("queue of a socket that does not listen: no error")
	}
}

func TestProbeGoesToItsSlotAndDisturbsNobody(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 3)
	g := s.group()
	setRing(t, g, 1, 2)
	client := bound(t, netip.AddrPortFrom(s.address.Addr(), 0))
	defer unix.Close(client)
	if err := g.Probe(3, nameOf(t, client).Port()); err != nil {
		t.Fatal(err)
	}
	s.dial(3)
	if err := unix.Connect(client, sock.Sockaddr(s.address)); err != nil && err != unix.EINPROGRESS {
		t.Fatal(err)
	}
	s.dial(1)
	s.expect(0, 2, 2, 1)
	if err := g.EndProbe(); err != nil {
		t.Fatal(err)
	}
	s.dial(2)
	s.expect(0, 3, 3, 1)
	if n := g.Steered(3); n != 0 {
		t.Errorf("the probe was counted as %d connections", n)
	}
}
