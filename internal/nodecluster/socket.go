package nodecluster

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"github.com/unitgen/unitgen/internal/sock"

	"golang.org/x/sys/unix"
)

// socket is a descriptor that goroutines other than its owner may close. The descriptor is not
// registered with Go's runtime poller, which would wake up for every line that the peer sends or
// reads.
type socket struct {
	mu sync.RWMutex
	fd int // negative when closed
}

// use calls f, which must not wait, with the descriptor.
func (s *socket) use(f func(fd int) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	return f(s.fd)
}

func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	err := unix.Close(s.fd)
	s.fd = -1
	return os.NewSyscallError("close", err)
}

// read reads the available input: unix.EAGAIN if there is none, io.EOF at the end. The kernel
// closes descriptors that come along, as there is no room for them (scm_recv in include/net/scm.h).
func (s *socket) read(p []byte) (n int, err error) {
	err = s.use(func(fd int) error {
		var err error
		for {
			if n, err = unix.Read(fd, p); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
	// A reset is a worker that died with something unread.
	if err == nil && n == 0 || errors.Is(err, unix.ECONNRESET) {
		return 0, io.EOF
	}
	return max(n, 0), err
}

// send sends what there is room for, with a descriptor unless it is negative: unix.EAGAIN if there
// is none.
func (s *socket) send(line []byte, with int) (n int, err error) {
	var rights []byte
	if with >= 0 {
		rights = unix.UnixRights(with)
	}
	err = s.use(func(fd int) error {
		var err error
		for {
			if n, err = unix.SendmsgN(fd, line, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
	return n, err
}

// polls reports whether one of the events is pending, or an error that the next call returns. The
// kernel calls a socket writable when less than a quarter of its buffer is unread (unix_writable in
// net/unix/af_unix.c), and the longest line fits into the rest.
func polls(fd int, events int16) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: events}}
	n, _ := sock.Poll(poll, 0)
	return n != 0
}

// duplicate is a connection to wait with.
func (s *socket) duplicate() (*net.UnixConn, error) {
	dup := -1
	if err := s.use(func(fd int) (err error) {
		dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewSyscallError("fcntl", err)
	}); err != nil {
		return nil, err
	}
	return Adopt(dup)
}

// Adopt makes a connection of a channel's descriptor, which it takes over.
func Adopt(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "channel")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("not a unix socket")
	}
	return c, nil
}
