package steer

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// snapshot takes one of an instance's listener.
func (s *site) snapshot(i int) Snapshot {
	s.t.Helper()
	was, err := TakeSnapshot(s.listeners[i])
	if err != nil {
		s.t.Fatal(err)
	}
	return was
}

// resume puts listener 1 back, which must say wrong, and into its slot.
func (s *site) resume(g *Group, was Snapshot, wrong string) {
	s.t.Helper()
	if got, err := was.Resume(s.listeners[1]); err != nil || got != wrong {
		s.t.Fatalf("resume: got %q, %v, want %q", got, err, wrong)
	}
	if err := g.Put(1, s.listeners[1]); err != nil {
		s.t.Fatal(err)
	}
}

func TestResume(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]struct {
		harm  func(t *testing.T, fd int) error
		wrong string
	}{
		"nothing":             {func(_ *testing.T, _ int) error { return nil }, ""},
		"shutdown":            {func(_ *testing.T, fd int) error { return unix.Shutdown(fd, unix.SHUT_RD) }, NotListening},
		"shutdown both ways":  {func(_ *testing.T, fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) }, NotListening},
		"shutdown twice":      {func(_ *testing.T, fd int) error { return shutdownTwice(fd) }, NotListening},
		"disconnect":          {func(_ *testing.T, fd int) error { return disconnect(fd) }, NotListening},
		"shutdown and listen": {func(_ *testing.T, fd int) error { return relisten(fd, 256) }, ""},
		"backlog":             {func(_ *testing.T, fd int) error { return unix.Listen(fd, 1) }, SmallBacklog},
		"larger backlog":      {func(_ *testing.T, fd int) error { return unix.Listen(fd, 512) }, ""},
		"no reuseport":        {noReusePort, NotListening},
		"connected":           {connectListener, NotListening},
	} {
		for _, address := range []string{"127.0.0.1", "::"} {
			t.Run(name+" "+address, func(t *testing.T) {
				s := newSite(t, address, 2)
				g := s.group()
				setRing(t, g, 1, 2)
				was := s.snapshot(1)
				before, err := Describe(s.listeners[1])
				if err != nil {
					t.Fatal(err)
				}
				if err := c.harm(t, s.listeners[1]); err != nil {
					t.Fatal(err)
				}
				s.resume(g, was, c.wrong)
				if after, err := Describe(s.listeners[1]); err != nil || after != before {
					t.Errorf("listener: got %+v, %v, want %+v", after, err, before)
				}
				s.dial(40)
				s.expect(0, 20, 20)
				if lost, err := g.Guard(); err != nil || lost != "" {
					t.Errorf("guard: lost %q, %v", lost, err)
				}
			})
		}
	}
}

func noReusePort(_ *testing.T, fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0); err != nil {
		return err
	}
	return unix.Shutdown(fd, unix.SHUT_RD)
}

// connectListener has a socket that listened connect to another one.
func connectListener(t *testing.T, fd int) error {
	if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
		return err
	}
	other, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	t.Cleanup(func() { unix.Close(other) }) // so that it stays connected
	if err := unix.Listen(other, 1); err != nil {
		return err
	}
	name, err := unix.Getsockname(other)
	if err != nil {
		return err
	}
	to := unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: name.(*unix.SockaddrInet4).Port})
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
		return err
	} else if domain == unix.AF_INET6 {
		mapped := [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}
		to = &unix.SockaddrInet6{Addr: mapped, Port: name.(*unix.SockaddrInet4).Port}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return err
	}
	return unix.Connect(fd, to)
}

// What one process sets on a listener, the next one does not find.
func TestRestore(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "::"} {
		t.Run(address, func(t *testing.T) {
			s := newSite(t, address, 1)
			fd := s.listeners[1]
			was := s.snapshot(1)
			if differed, err := was.Restore(fd); err != nil || differed != "" {
				t.Fatalf("restore of what is as it was: %q, %v", differed, err)
			}
			want := describeOptions(t, fd)
			for _, err := range []error{
				unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30),
				unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1),
				unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 1),
				unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 100),
				unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 5),
				unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno"),
				unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 1),
				unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MINTTL, 255),
				unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, 8),
				unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, "\x01\x01\x01\x01"),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, 1),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1000),
				unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
				unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			differed, err := was.Restore(fd)
			if err != nil || strings.Count(differed, ",") < 15 {
				t.Errorf("restore: %q, %v", differed, err)
			}
			if got := describeOptions(t, fd); got != want {
				t.Errorf("options: got %q, want %q", got, want)
			}
		})
	}
}

func describeOptions(t *testing.T, fd int) string {
	t.Helper()
	var all strings.Builder
	for _, o := range listenerOptions {
		if value, err := o.read(fd); err == nil && o.as != unset {
			all.WriteString(o.name + "=" + strings.TrimRight(value, "\x00") + " ")
		}
	}
	return all.String()
}

func BenchmarkResume(b *testing.B) {
	g := benchGroup(b)
	was, err := TakeSnapshot(g.parking)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("look", func(b *testing.B) {
		for b.Loop() {
			if _, err := was.Resume(g.parking); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("restore", func(b *testing.B) {
		for b.Loop() {
			if _, err := was.Restore(g.parking); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// shutdownTwice is what two processes do that share a listener and each shut it down.
func shutdownTwice(fd int) error {
	if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
		return err
	}
	if err := unix.Shutdown(fd, unix.SHUT_RD); !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("second shutdown: %v, want ENOTCONN", err)
	}
	return nil
}

// Connections of a listener that was shut down twice can be read to their true end.
func TestResumeWhatWasShutDownTwice(t *testing.T) {
	s := newSite(t, "127.0.0.1", 1)
	s.close(0)
	fd := s.listeners[1]
	was, err := TakeSnapshot(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := shutdownTwice(fd); err != nil {
		t.Fatal(err)
	}
	if wrong, err := was.Resume(fd); wrong != NotListening || err != nil {
		t.Fatalf("resume: %q, %v", wrong, err)
	}
	s.dial(1)
	server, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(server)
	if n, err := unix.Read(server, make([]byte, 1)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("read of a connection whose client has not sent: %d, %v, want EAGAIN", n, err)
	}
}
