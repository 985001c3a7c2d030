package shim

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/steer"
)

// looked takes a look at now, and lets what follows of it happen.
func (b *bench) looked(now time.Time) {
	b.t.Helper()
	if err := b.look(now); err != nil {
		b.t.Fatal(err)
	}
	b.settled()
}

// awaitAlarm looks until the status line says text.
func (b *bench) awaitAlarm(text string) {
	b.t.Helper()
	for limit := time.Now().Add(30 * time.Second); !strings.Contains(b.line(time.Now()), text); {
		if time.Now().After(limit) {
			b.t.Fatalf("status line is %q, want %q in it", b.line(time.Now()), text)
		}
		b.looked(time.Now())
	}
}

func TestSteeringThatIsTakenOffIsPutBack(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	b.up(2)
	if err := unix.SetsockoptInt(b.listeners[1], unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0); err != nil {
		t.Fatal(err)
	}
	b.awaitAlarm("the steering program was taken off (put back): an instance did it")
	want(t, "after the look", b.connect(40), map[int]int{1: 20, 2: 20})
	if line := b.line(time.Now().Add(alarmShown)); strings.Contains(line, "taken off") {
		t.Errorf("status line much later: %q", line)
	}
}

func TestListenerThatAnInstanceChangesIsPutBack(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(fd int) error
		says string
	}{
		"shut down":           {func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) }, "it did not listen"},
		"shut down and again": {shutAndListen, "it did not listen for a moment"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Options{})
			b.up(1)
			b.up(2)
			if err := c.harm(b.listeners[1]); err != nil {
				t.Fatal(err)
			}
			b.looked(time.Now())
			if line := b.line(time.Now()); !strings.Contains(line, "app@1.service changed its listener (put back): "+c.says) {
				t.Errorf("status line: %q", line)
			}
			want(t, "after the look", b.connect(40), map[int]int{1: 20, 2: 20})
		})
	}
}

// A program may call listen() with a backlog of its own; to do so without end is tampering.
func TestBacklogIsPutBack(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	for _, alarm := range []bool{false, true} {
		if err := unix.Listen(b.listeners[1], 1); err != nil {
			t.Fatal(err)
		}
		b.looked(time.Now())
		if line := b.line(time.Now()); strings.Contains(line, steer.SmallBacklog) != alarm {
			t.Errorf("status line: %q, alarm %v", line, alarm)
		}
		if _, backlog, err := steer.Queue(b.listeners[1]); err != nil || backlog != 128 {
			t.Errorf("backlog %d, %v", backlog, err)
		}
	}
}

func shutAndListen(fd int) error {
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
		return err
	}
	return unix.Listen(fd, 128)
}

// A program that shuts its listener down and changes it as it ends leaves nothing of that to the
// next one.
func TestListenerIsRenewedWhenItsProgramEnds(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	for _, option := range []int{unix.TCP_DEFER_ACCEPT, unix.TCP_USER_TIMEOUT} {
		if err := unix.SetsockoptInt(b.listeners[1], unix.IPPROTO_TCP, option, 5); err != nil {
			t.Fatal(err)
		}
	}
	b.service(1, "deactivating", "stop-sigterm")
	if err := unix.Shutdown(b.listeners[1], unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	b.service(1, "deactivating", "stop-post")
	for _, option := range []int{unix.TCP_DEFER_ACCEPT, unix.TCP_USER_TIMEOUT} {
		if is, err := unix.GetsockoptInt(b.listeners[1], unix.IPPROTO_TCP, option); err != nil || is != 0 {
			t.Errorf("option %d after the end: %d, %v", option, is, err)
		}
	}
	if line := b.line(time.Now()); strings.Contains(line, "put back") {
		t.Errorf("status line tells of a program that ended: %q", line)
	}
	b.service(1, "active", "running")
	want(t, "the next one", b.connect(10), map[int]int{1: 10})
}

// The journal is told once of what happens again and again, and the status line stays the same.
func TestAlarmsAreLimited(t *testing.T) {
	b := newBench(t, Options{})
	now := time.Now()
	b.raise(now, "something")
	line := b.line(now)
	for i := range 100 {
		b.raise(now.Add(time.Duration(i)*alarmPause/100), "something")
	}
	a := b.alarms.kinds["something"]
	if a.count != 101 || a.quiet != 1 || b.line(now) != line {
		t.Errorf("alarm: %+v, line %q, was %q", a, b.line(now), line)
	}
	b.raise(now.Add(2*alarmPause), "something")
	if a.quiet != 102 {
		t.Errorf("alarm later: %+v", a)
	}
}

// The public listener of the handoff path is every instance's too.
func TestHandedListenerThatAnInstanceChangesIsPutBack(t *testing.T) {
	b := newHandedBench(t, Options{})
	conns := accepting(b.handedUp(1))
	b.awaitHanded(func() bool { return b.inRing(1) })
	first := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	filter := unix.SockFprog{Len: 1, Filter: &first[0]}
	if err := unix.SetsockoptSockFprog(b.parking, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &filter); err != unix.EPERM {
		t.Errorf("filter on the public listener: %v, want %v", err, unix.EPERM)
	}
	for _, c := range []struct {
		harm func() error
		says string
	}{
		{func() error { return unix.Shutdown(b.parking, unix.SHUT_RDWR) }, "it did not listen"},
		{func() error { return handoff.Refuse(b.parking) }, "IP_MINTTL changed"},
		{func() error { return unix.Listen(b.parking, 0) }, "its backlog was made smaller"},
	} {
		if err := c.harm(); err != nil {
			t.Fatal(err)
		}
		b.looked(time.Now())
		if line := b.line(time.Now()); !strings.Contains(line, "the public listener was tampered with: "+c.says+" (put back)") {
			t.Errorf("status line: %q, want %q in it", line, c.says)
		}
		b.dial(1)
		select {
		case conn := <-conns:
			conn.Close()
		case <-time.After(30 * time.Second):
			t.Fatalf("no connection after %q", c.says)
		}
	}
}
