package activation

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff/wire"
)

// channel is the connection to a balancer.
type channel struct {
	conn *net.UnixConn
	raw  syscall.RawConn
}

// channelBuffers are what a message is read into. They are used by one Accept at a time.
type channelBuffers struct {
	message [wire.MaxSize + 1]byte
	rights  [1024]byte // CmsgSpace(4 * MaxListeners) and more
}

func newChannel(conn *net.UnixConn) (*channel, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &channel{conn: conn, raw: raw}, nil
}

func (ch *channel) close() { ch.conn.Close() }

// interrupt makes all present and later waits fail.
func (ch *channel) interrupt() error { return ch.conn.SetDeadline(time.Unix(1, 0)) }

// read waits for a message. The caller owns the descriptors, which are close-on-exec.
func (ch *channel) read(b *channelBuffers) (m wire.Message, fds []int, err error) {
	var n, oobn, flags int
	waitErr := ch.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, _, err = unix.Recvmsg(int(fd), b.message[:], b.rights[:], unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if err := errors.Join(waitErr, os.NewSyscallError("recvmsg", err)); err != nil {
		return m, nil, err
	}
	if fds, err = descriptorsIn(b.rights[:oobn]); err == nil && n == 0 {
		err = io.EOF
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = errors.New("read message: descriptors are missing, has this process too many open files?")
	}
	if err == nil {
		m, err = wire.FromBalancer(b.message[:n], len(fds))
	}
	if err != nil {
		closeDescriptors(fds)
		return m, nil, err
	}
	return m, fds, nil
}

func descriptorsIn(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		if messages[i].Header.Level != unix.SOL_SOCKET || messages[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		some, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, some...)
	}
	return fds, nil
}

// trySend sends a message; unix.EAGAIN if it would have to wait. Counts in messages must not go
// back, so callers that compete hold a lock.
func (ch *channel) trySend(m wire.Message) (err error) {
	controlErr := ch.raw.Control(func(fd uintptr) { err = sendOnce(int(fd), m) })
	return errors.Join(controlErr, err)
}

// send calls try with mu held, with what sends a message, as soon as there is room.
func (ch *channel) send(mu *sync.Mutex, try func(send func(wire.Message) error) error) (err error) {
	waitErr := ch.raw.Write(func(fd uintptr) bool {
		mu.Lock()
		defer mu.Unlock()
		err = try(func(m wire.Message) error { return sendOnce(int(fd), m) })
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(waitErr, err)
}

func sendOnce(fd int, m wire.Message) error {
	var buf [64]byte
	for {
		err := unix.Sendmsg(fd, wire.Append(buf[:0], m), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// publicListener is a duplicate of one of the app's listeners. Its open file description is
// everybody's: it is non-blocking because the balancer's unit says so.
type publicListener struct {
	fd   int
	addr net.Addr
}

// newPublicListener owns fd if it succeeds.
func newPublicListener(fd int) (*publicListener, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if flags&unix.O_NONBLOCK == 0 {
		return nil, errors.New("take public listener: it blocks")
	}
	addr, err := localAddr(fd, unix.SOCK_STREAM)
	if err == nil && addr == nil {
		err = errors.New("take public listener: neither TCP nor a unix socket")
	}
	if err != nil {
		return nil, err
	}
	return &publicListener{fd: fd, addr: addr}, nil
}

func closePublic(all []*publicListener) {
	for _, p := range all {
		unix.Close(p.fd)
	}
}

// accept accepts one connection; unix.EAGAIN if none waits.
func (p *publicListener) accept() (fd int, peer net.Addr, err error) {
	for {
		fd, from, err := unix.Accept4(p.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			return fd, sockaddrAddr(from), nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED): // the client has left
		default:
			return -1, nil, os.NewSyscallError("accept4", err)
		}
	}
}

// sockaddrAddr converts the address of the other end to a type of package net.
func sockaddrAddr(from unix.Sockaddr) net.Addr {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return ipAddr(a.Addr[:], a.Port, "", unix.SOCK_STREAM)
	case *unix.SockaddrInet6:
		return ipAddr(a.Addr[:], a.Port, zone(a.ZoneId), unix.SOCK_STREAM)
	case *unix.SockaddrUnix:
		return unixAddr(a.Name, unix.SOCK_STREAM)
	}
	return unixAddr("", unix.SOCK_STREAM)
}

func peerAddr(p wire.Peer) net.Addr {
	if !p.Address.IsValid() {
		return unixAddr("", unix.SOCK_STREAM)
	}
	return ipAddr(p.Address.AsSlice(), int(p.Port), zone(p.Scope), unix.SOCK_STREAM)
}
