package sockdiag

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dump sends req and calls each for every socket of the answer; the socket is valid during the call
// only. When each fails, the rest is read and dropped.
//
// It never waits: the kernel fills the queue within sendto(2) and again within each recvfrom(2)
// (net/netlink/af_netlink.c, netlink_dump), so that an empty queue before the end is an error.
func (c *Conn) dump(req []byte, each func(*socket) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return os.ErrClosed
	}
	// A shim that was killed while it read leaves its dump running, and the kernel refuses the next
	// one (EBUSY).
	if err := flush(c.fd, c.buf); err != nil {
		return err
	}
	c.seq++
	setSeq(req, c.seq)
	if err := send(c.fd, req); err != nil {
		return err
	}
	for done := false; !done; {
		n, fromKernel, err := receive(c.fd, c.buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return errors.New("read socket dump: it ended early")
		case err != nil:
			return fmt.Errorf("read socket dump: %w", err)
		case !fromKernel:
			continue
		}
		done, err = scan(c.buf[:n], c.seq, each)
		if err != nil {
			// When this process has ended, PID 1 takes unread messages for traffic and starts the
			// service.
			return errors.Join(err, flush(c.fd, c.buf))
		}
	}
	return nil
}

// send sends one request to the kernel.
func send(fd int, req []byte) error {
	for {
		err := unix.Sendto(fd, req, unix.MSG_DONTWAIT, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("request socket dump: %w", os.NewSyscallError("sendto", err))
		}
	}
}

// receive reads one datagram, and reports whether the kernel sent it: root can write to any netlink
// socket.
func receive(fd int, buf []byte) (n int, fromKernel bool, err error) {
	for {
		n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, false, os.NewSyscallError("recvfrom", err)
		}
		nl, ok := from.(*unix.SockaddrNetlink)
		return n, ok && nl.Pid == 0, nil
	}
}

// flush reads and drops all that is queued. It ends: a dump that runs ends with the table, and
// nothing else is sent to a socket that has joined no group.
func flush(fd int, buf []byte) error {
	for {
		_, _, err := receive(fd, buf)
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS): // ENOBUFS is reported once, and what is queued stays
		case errors.Is(err, unix.EAGAIN):
			return nil
		default:
			return fmt.Errorf("flush netlink socket: %w", err)
		}
	}
}
