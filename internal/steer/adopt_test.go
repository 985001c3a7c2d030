package steer

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
)

// vault stands for PID 1's descriptor store: it keeps duplicates of a group's maps.
type vault struct{ maps Maps }

func (v *vault) store(m Maps) error {
	var err error
	if v.maps.Slots, err = unix.FcntlInt(uintptr(m.Slots), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return err
	}
	v.maps.State, err = unix.FcntlInt(uintptr(m.State), unix.F_DUPFD_CLOEXEC, 0)
	return err
}

func (s *site) stored(v *vault) *Group {
	s.t.Helper()
	g, err := New(s.listeners[0], v.store)
	if err != nil {
		s.t.Fatal(err)
	}
	for i, fd := range s.listeners[1:] {
		if err := g.Put(i+1, fd); err != nil {
			s.t.Fatal(err)
		}
	}
	return g
}

func closeGroup(t *testing.T, g *Group) {
	t.Helper()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAdoptKeepsEverything(t *testing.T) {
	needRoot(t)
	s := newSite(t, "::1", 3)
	var v vault
	g := s.stored(&v)
	setRing(t, g, 1, 2, 3)
	s.dial(4)
	closeGroup(t, g)
	s.dial(3) // nobody holds the group now but the kernel
	var kept vault
	if err := kept.store(v.maps); err != nil {
		t.Fatal(err)
	}

	g, err := Adopt(s.listeners[0], v.maps, balance.RoundRobin)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(g.Ring()); got != "[1 2 3]" {
		t.Errorf("ring after adoption: %s", got)
	}
	for slot := range 4 {
		if cookie, err := g.Member(slot); err != nil || cookie == 0 {
			t.Errorf("slot %d after adoption: cookie %d, %v", slot, cookie, err)
		}
	}
	s.dial(2)
	s.expect(0, 3, 3, 3)
	setRing(t, g, 3)
	s.dial(2)
	if err := g.Refuse(); err != nil {
		t.Fatal(err)
	}
	closeGroup(t, g)
	if _, err := connect(s.address); !refused(err) {
		t.Errorf("Refuse did not outlive the group: %v", err)
	}

	g, err = Adopt(s.listeners[0], kept.maps, balance.RoundRobin)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := connect(s.address); !refused(err) {
		t.Errorf("Refuse was lost by adoption: %v", err)
	}
	s.expect(0, 3, 3, 5)
	if got := g.Steered(3); got != 5 {
		t.Errorf("steered to slot 3: got %d, want 5", got)
	}
}

// Handles are dropped and maps adopted again and again while connections flow: none may fail, none
// may be misplaced.
func TestAdoptUnderLoad(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 3)
	var v vault
	g := s.stored(&v)
	setRing(t, g, 1, 2, 3)

	const dialers, each = 2, 300
	var failed atomic.Int64
	var wait sync.WaitGroup
	var served [4]int
	stop := make(chan struct{})
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		acceptUntil(s.listeners, &served, stop)
	}()
	for range dialers {
		wait.Go(func() {
			for range each {
				fd, err := connect(s.address)
				if err != nil {
					failed.Add(1)
					continue
				}
				// Read until the server has closed, so that it is known to be accepted.
				if _, err := unix.Read(fd, make([]byte, 1)); err != nil {
					failed.Add(1)
				}
				unix.Close(fd)
			}
		})
	}
	done := make(chan struct{})
	go func() { wait.Wait(); close(done) }()
	adoptions := 0
	for flowing := true; flowing; adoptions++ {
		select {
		case <-done:
			flowing = false
		default:
		}
		maps := v.maps
		if err := v.store(maps); err != nil {
			t.Fatal(err)
		}
		closeGroup(t, g)
		var err error
		if g, err = Adopt(s.listeners[0], maps, balance.RoundRobin); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-accepting
	closeGroup(t, g)
	unix.Close(v.maps.Slots)
	unix.Close(v.maps.State)
	if failed.Load() != 0 {
		t.Errorf("%d of %d connections failed over %d adoptions", failed.Load(), dialers*each, adoptions)
	}
	if served != [4]int{0, each * dialers / 3, each * dialers / 3, each * dialers / 3} {
		t.Errorf("spread over %d adoptions: %v", adoptions, served)
	}
	t.Logf("%d adoptions", adoptions)
}

// acceptUntil accepts and closes at all listeners until stop is closed.
func acceptUntil(listeners []int, served *[4]int, stop <-chan struct{}) {
	for {
		var poll []unix.PollFd
		for _, fd := range listeners {
			poll = append(poll, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
		unix.Poll(poll, 10)
		for i, fd := range listeners {
			for {
				c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
				if err != nil {
					break
				}
				served[i]++
				unix.Close(c)
			}
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}

// A shim that died between attaching and storing leaves a program whose maps nobody holds, and the
// listeners in them.
func TestRecoveryFromOrphan(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 3)
	orphan, err := New(s.listeners[0], func(Maps) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for i, fd := range s.listeners[1:] {
		if err := orphan.Put(i+1, fd); err != nil {
			t.Fatal(err)
		}
	}
	setRing(t, orphan, 1)
	s.dial(2)
	closeGroup(t, orphan)
	g := s.group()
	setRing(t, g, 1, 2, 3)
	s.dial(9)
	s.expect(0, 5, 3, 3)
}

// As before, but the parking listener is a new one, so that only Put of an instance meets the old
// map.
func TestRecoveryFromOrphanWithNewParking(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 2)
	orphan, err := New(s.listeners[0], func(Maps) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := orphan.Put(1, s.listeners[1]); err != nil {
		t.Fatal(err)
	}
	closeGroup(t, orphan)
	s.add()
	s.close(0)
	s.listeners = []int{s.listeners[3], s.listeners[1], s.listeners[2]}
	g := s.group()
	setRing(t, g, 1, 2)
	s.dial(4)
	s.expect(0, 2, 2)
}

func TestStoreErrorLeavesNothing(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 1)
	full := errors.New("store is full")
	if _, err := New(s.listeners[0], func(Maps) error { return full }); !errors.Is(err, full) {
		t.Fatalf("got %v, want %v", err, full)
	}
	s.group()
}

func TestAdoptRefusesOtherLayouts(t *testing.T) {
	needRoot(t)
	s := newSite(t, "127.0.0.1", 1)
	var v vault
	g := s.stored(&v)
	g.state.word(offVersion).Add(1)
	closeGroup(t, g)
	if _, err := Adopt(s.listeners[0], v.maps, balance.RoundRobin); !errors.Is(err, ErrLayout) {
		t.Errorf("another version: got %v, want %v", err, ErrLayout)
	}
	g = s.stored(&v)
	closeGroup(t, g)
	if _, err := Adopt(s.listeners[0], Maps{Slots: v.maps.State, State: v.maps.Slots}, balance.RoundRobin); !errors.Is(err, ErrLayout) {
		t.Errorf("maps swapped: got %v, want %v", err, ErrLayout)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := v.store(Maps{Slots: int(null.Fd()), State: int(null.Fd())}); err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(s.listeners[0], v.maps, balance.RoundRobin); err == nil {
		t.Error("not maps: no error")
	}
}
