package steer

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An instance has its own listener and tries to replace the steering of all.
func TestInstanceCannotReplaceSteering(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 4)
	g := s.group()
	setRing(t, g, ring(4)...)
	s.attack(s.listeners[2])
	s.dial(40)
	s.expect(0, 10, 10, 10, 10)
	if lost, err := g.Guard(); err != nil || lost != "" {
		t.Errorf("guard after attacks that failed: lost %q, %v", lost, err)
	}
}

func TestClassicInstanceCannotReplaceSteering(t *testing.T) {
	s := newSite(t, "127.0.0.1", 2)
	c := s.classic()
	setClassic(t, c, 1, 2)
	s.attack(s.listeners[2])
	setClassic(t, c, 1)
	s.dial(10)
	s.expect(0, 10, 0)
	unlock := unix.SetsockoptInt(s.listeners[2], unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
	if unlock != nil {
		t.Fatal(unlock)
	}
	if _, err := c.Guard(); err != nil {
		t.Fatal(err)
	}
	s.dial(10)
	s.expect(0, 20, 0)
}

// attack gives a listener programs that send every connection to the first member, or drop it. All
// must fail.
func (s *site) attack(listener int) {
	s.t.Helper()
	first := []unix.SockFilter{give(0)}
	code := unix.SockFprog{Len: 1, Filter: &first[0]}
	for name, option := range map[string]int{
		"SO_ATTACH_REUSEPORT_CBPF": unix.SO_ATTACH_REUSEPORT_CBPF, "SO_ATTACH_FILTER": unix.SO_ATTACH_FILTER,
	} {
		if err := unix.SetsockoptSockFprog(listener, unix.SOL_SOCKET, option, &code); err != unix.EPERM {
			s.t.Errorf("%s on an instance's listener: got %v, want %v", name, err, unix.EPERM)
		}
	}
	if err := unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 0); err != unix.EPERM {
		s.t.Errorf("SO_LOCK_FILTER=0: got %v, want %v", err, unix.EPERM)
	}
}

// What cannot be prevented is seen and mended.
func TestGuardPutsSteeringBack(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 4)
	g := s.group()
	setRing(t, g, ring(4)...)
	for round := range 3 {
		if err := detach(s.listeners[2]); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		eventually(t, "the guard sees that the program is off", func() bool {
			lost, err := g.Guard()
			if err != nil {
				t.Fatal(err)
			}
			return lost != ""
		})
		t.Logf("round %d: seen after %v", round, time.Since(began))
		if lost, err := g.Guard(); err != nil || lost != "" {
			t.Fatalf("guard after it has mended: lost %q, %v", lost, err)
		}
		s.dial(40)
		s.expect(0, 10*(round+1), 10*(round+1), 10*(round+1), 10*(round+1))
	}
}

// A queue that is moved while no program is attached would be reset.
func TestRescueAfterDetach(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 2)
	g := s.group()
	setRing(t, g, 1)
	clients := s.dial(10)
	setRing(t, g, 2)
	if err := detach(s.listeners[1]); err != nil {
		t.Fatal(err)
	}
	if moved, err := g.Rescue(1, s.listeners[1]); err != nil || moved != 10 {
		t.Fatalf("rescue: moved %d, %v", moved, err)
	}
	s.expect(0, 0, 10)
	for _, c := range clients {
		if err := unix.SetNonblock(c, true); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Read(c, make([]byte, 1)); err != unix.EAGAIN {
			t.Fatalf("client that waited: %v, want EAGAIN", err)
		}
	}
}

// BenchmarkGuard is what a look costs, and putting the program back.
func BenchmarkGuard(b *testing.B) {
	g := benchGroup(b)
	b.Run("look", func(b *testing.B) {
		for b.Loop() {
			if _, err := g.Guard(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("attach", func(b *testing.B) {
		for b.Loop() {
			if err := g.attach(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchGroup(b *testing.B) *Group {
	b.Helper()
	g, err := New(benchListener(b, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), func(Maps) error { return nil })
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(func() { g.Close() })
	return g
}

func benchListener(b *testing.B, at unix.Sockaddr) int {
	b.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		b.Fatal(err)
	}
	if err := unix.Bind(fd, at); err != nil {
		b.Fatal(err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		b.Fatal(err)
	}
	return fd
}

// detach takes the program off the reuseport group of a listener, as each of its holders can.
func detach(listener int) error {
	return unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
}
