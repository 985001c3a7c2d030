package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Numbers of linux/sock_diag.h and linux/unix_diag.h.
const (
	sockDiagByFamily = 20
	unixShowRqlen    = 0x10
	unixAttrRqlen    = 4
	unixRequestLen   = 24 // sizeof(struct unix_diag_req)
	unixMessageLen   = 16 // sizeof(struct unix_diag_msg)
)

// UnixQueue returns how many connections wait at a listening unix socket of the network namespace,
// by its inode number from fstat(2) on the descriptor. It costs two system calls; no other
// interface reports the number.
func (c *Conn) UnixQueue(inode uint32) (int, error) {
	n, err := c.unixQueue(inode)
	if err != nil {
		return 0, fmt.Errorf("read queue of unix socket: %w", err)
	}
	return n, nil
}

func (c *Conn) unixQueue(inode uint32) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return 0, os.ErrClosed
	}
	c.seq++
	var b [unix.SizeofNlMsghdr + unixRequestLen]byte
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST)
	setSeq(b[:], c.seq)
	body := b[unix.SizeofNlMsghdr:]
	body[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(body[4:], ^uint32(0)) // in any state
	binary.NativeEndian.PutUint32(body[8:], inode)
	binary.NativeEndian.PutUint32(body[12:], unixShowRqlen)
	binary.NativeEndian.PutUint64(body[16:], ^uint64(0)) // of any cookie
	if err := send(c.fd, b[:]); err != nil {
		return 0, err
	}
	for {
		n, fromKernel, err := receive(c.fd, c.buf)
		if err != nil {
			return 0, err
		}
		if !fromKernel || n < unix.SizeofNlMsghdr || binary.NativeEndian.Uint32(c.buf[8:]) != c.seq {
			continue // what a shim that was killed has not read
		}
		return parseUnixQueue(c.buf[:n])
	}
}

// parseUnixQueue finds attribute UNIX_DIAG_RQLEN in an answer: the queue of a listener, and what
// fits in it.
func parseUnixQueue(b []byte) (int, error) {
	kind, body := binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:]
	if kind == unix.NLMSG_ERROR {
		if len(body) < 4 {
			return 0, errMalformed
		}
		return 0, os.NewSyscallError("sock_diag", unix.Errno(-int32(binary.NativeEndian.Uint32(body))))
	}
	if kind != sockDiagByFamily || len(body) < unixMessageLen {
		return 0, errMalformed
	}
	for attrs := body[unixMessageLen:]; len(attrs) >= unix.SizeofNlAttr; {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < unix.SizeofNlAttr || size > len(attrs) {
			return 0, errMalformed
		}
		if binary.NativeEndian.Uint16(attrs[2:])&attrType == unixAttrRqlen && size >= unix.SizeofNlAttr+8 {
			return int(binary.NativeEndian.Uint32(attrs[unix.SizeofNlAttr:])), nil
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	return 0, errors.New("the kernel does not report it")
}
