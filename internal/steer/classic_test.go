package steer

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// classic makes a classic group of the site with all instances put; it needs no privilege.
func (s *site) classic() *Classic {
	s.t.Helper()
	c, err := NewClassic(s.listeners[0])
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	for i, fd := range s.listeners[1:] {
		if err := c.Put(i+1, fd); err != nil {
			s.t.Fatal(err)
		}
	}
	return c
}

func setClassic(t *testing.T, c *Classic, ring ...uint16) {
	t.Helper()
	if err := c.SetRing(ring); err != nil {
		t.Fatal(err)
	}
}

func TestClassic(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "::1", "0.0.0.0", "::"} {
		t.Run(address, func(t *testing.T) {
			s := newSite(t, address, 4)
			c := s.classic()
			setClassic(t, c)
			s.dial(10)
			s.expect(10, 0, 0, 0, 0)
			setClassic(t, c, 3)
			s.dial(10)
			s.expect(10, 0, 0, 10, 0)
			// 1 is drained; of the others 2 is three times as likely.
			setClassic(t, c, 2, 3, 2, 4, 2)
			s.dial(200)
			got := s.queues()
			if got[0] != 10 || got[1] != 0 || got[2] < 80 || got[2] > 160 || got[3] < 25 || got[4] < 15 {
				t.Errorf("accept queues after a ring with weights: %v", got)
			}
			if err := c.Refuse(); err != nil {
				t.Fatal(err)
			}
			s.dial(1)
			if err := c.Admit(); err != nil {
				t.Fatal(err)
			}
			if parked := s.queues()[0]; parked != 11 {
				t.Errorf("parked: got %d, want 11", parked)
			}
			if _, err := c.Rescue(Parking, s.listeners[0]); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("rescue: got %v, want ErrUnsupported", err)
			}
		})
	}
}

// Members that come and go change the order in the kernel: the last takes the place of one that
// closes.
func TestClassicFollowsTheOrder(t *testing.T) {
	s := newSite(t, "127.0.0.1", 4)
	c := s.classic()
	setClassic(t, c, 1, 2, 3, 4)
	for _, slot := range []int{1, 2} {
		if err := c.Remove(slot); err != nil {
			t.Fatal(err)
		}
	}
	s.dial(8) // not to the removed ones, nor to those that will move
	s.expect(8, 0, 0, 0, 0)
	s.close(1)
	s.close(2)
	s.dial(8)
	s.expect(16, 0, 0, 0, 0)
	for want := range uint16(2) {
		slot := want + 3
		setClassic(t, c, slot)
		s.dial(5)
		if got := s.queues()[slot]; got != 5 {
			t.Errorf("slot %d: got %d connections, want 5", slot, got)
		}
	}
	s.add() // a stranger, as of a unit that starts now
	known := s.add()
	if err := c.Put(6, s.listeners[known]); err != nil {
		t.Fatal(err)
	}
	setClassic(t, c, 6)
	s.dial(5)
	s.expect(16, 0, 0, 5, 5, 0, 5)
	if err := c.SetRing([]uint16{5}); err == nil {
		t.Error("ring with a stranger: no error")
	}
}

// A group whose order cannot be found is not steered at all, and the error says so.
func TestClassicSaysWhenItCannotKnow(t *testing.T) {
	s := newSite(t, "127.0.0.1", 1)
	c := s.classic()
	gone, err := unix.FcntlInt(uintptr(s.listeners[1]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(gone)
	if err := unix.Shutdown(gone, unix.SHUT_RD); err != nil {
		t.Fatal(err)
	}
	if err := c.SetRing([]uint16{1}); !errors.Is(err, ErrOrder) {
		t.Errorf("ring with a member that does not listen: got %v, want %v", err, ErrOrder)
	} else {
		t.Log(err)
	}
}
