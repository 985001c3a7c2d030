package activation

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// handedConn is a connection from a balancer. It is a net.Conn with CloseRead, CloseWrite and
// SyscallConn, as those of package net, but none of their types.
type handedConn struct {
	file          *os.File // registered with the runtime's poller
	listener      *handoffListener
	local, remote net.Addr
	localOnce     sync.Once

	ops   atomic.Uint64 // reads and writes that moved bytes
	asked atomic.Bool   // bytes came in after the last that went out
}

// activity is a connection's use at the listener's last check.
type activity struct {
	ops   uint64
	since time.Time
}

// quietFor is how long a connection must be without traffic to count as not busy, as in the
// balancer's count.
const quietFor = time.Second

// busyLocked counts the connections that wait for an answer, or on which bytes moved lately.
func (l *handoffListener) busyLocked(now time.Time) (busy uint64) {
	for conn, a := range l.open {
		if ops := conn.ops.Load(); ops != a.ops || a.since.IsZero() {
			a.ops, a.since = ops, now
		}
		if conn.asked.Load() || now.Sub(a.since) < quietFor {
			busy++
		}
	}
	return busy
}

// Read implements net.Conn.
func (c *handedConn) Read(b []byte) (int, error) {
	n, err := c.file.Read(b)
	if n > 0 {
		c.asked.Store(true)
		c.ops.Add(1)
	}
	return n, c.wrap("read", err)
}

// Write implements net.Conn.
func (c *handedConn) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	if n > 0 {
		c.ops.Add(1)
		c.asked.Store(false)
	}
	return n, c.wrap("write", err)
}

// Close implements net.Conn.
func (c *handedConn) Close() error {
	err := c.file.Close()
	c.listener.ended(c)
	return c.wrap("close", err)
}

// CloseRead shuts down the reading side.
func (c *handedConn) CloseRead() error { return c.shutdown(unix.SHUT_RD) }

// CloseWrite shuts down the writing side.
func (c *handedConn) CloseWrite() error { return c.shutdown(unix.SHUT_WR) }

func (c *handedConn) shutdown(how int) error {
	var err error
	if e := c.control(func(fd int) { err = os.NewSyscallError("shutdown", unix.Shutdown(fd, how)) }); e != nil {
		err = e
	}
	return c.wrap("close", err)
}

// LocalAddr implements net.Conn. The listener's address is the connection's, unless it is every
// address of the host: then the kernel is asked, once.
func (c *handedConn) LocalAddr() net.Addr {
	c.localOnce.Do(func() {
		tcp, ok := c.local.(*net.TCPAddr)
		if !ok || !tcp.IP.IsUnspecified() {
			return
		}
		_ = c.control(func(fd int) {
			if addr, err := localAddr(fd, unix.SOCK_STREAM); err == nil && addr != nil {
				c.local = addr
			}
		}) // closed: what is known has to do
	})
	return c.local
}

// RemoteAddr implements net.Conn.
func (c *handedConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *handedConn) SetDeadline(t time.Time) error { return c.wrap("set", c.file.SetDeadline(t)) }

// SetReadDeadline implements net.Conn.
func (c *handedConn) SetReadDeadline(t time.Time) error {
	return c.wrap("set", c.file.SetReadDeadline(t))
}

// SetWriteDeadline implements net.Conn.
func (c *handedConn) SetWriteDeadline(t time.Time) error {
	return c.wrap("set", c.file.SetWriteDeadline(t))
}

// SyscallConn implements syscall.Conn.
func (c *handedConn) SyscallConn() (syscall.RawConn, error) { return c.file.SyscallConn() }

func (c *handedConn) control(f func(fd int)) error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}

// wrap converts errors to those of package net, on which net/http relies: a time-out is a
// net.Error, and a closed connection net.ErrClosed.
func (c *handedConn) wrap(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if errors.Is(err, os.ErrClosed) {
		err = net.ErrClosed
	} else if path, ok := err.(*os.PathError); ok {
		err = path.Err
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError(op, errno)
		}
	}
	return &net.OpError{Op: op, Net: c.remote.Network(), Source: c.local, Addr: c.remote, Err: err}
}
