package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Attributes of an answer (linux/inet_diag.h).
const (
	attrInfo   = 2  // INET_DIAG_INFO: struct tcp_info
	attrCgroup = 21 // INET_DIAG_CGROUP_ID: u64
	// attrType masks the flags off nla_type (NLA_TYPE_MASK).
	attrType = 0x3fff
)

// Offsets in struct inet_diag_msg and its size.
const (
	msgState  = 1
	msgPort   = 4
	msgCookie = 44
	msgRqueue = 56
	msgWqueue = 60
	msgInode  = 68
	msgLen    = 72
)

// errMalformed says that a datagram is not what the kernel sends.
var errMalformed = errors.New("malformed netlink message")

// socket is the entry of one socket in a dump.
type socket struct {
	state  uint8
	port   uint16 // local
	cookie uint64
	// rqueue and wqueue are the unread and the unacknowledged or unsent bytes of a connection; the
	// used and allowed queue of a listener.
	rqueue, wqueue uint32
	inode          uint32 // zero while no process has accepted it
	cgroup         uint64
	hasCgroup      bool
	info           info
	hasInfo        bool
}

// info is the part of struct tcp_info that shows whether a connection is busy. If nothing was sent
// or received, the ages count from the connection's creation, in ticks of the kernel's clock (1 to
// 10 ms, CONFIG_HZ).
type info struct {
	sinceSent, sinceRecv, sinceAck time.Duration
	segsIn, segsOut                uint32 // that carried data
}

// scan calls each for the sockets in one datagram, and reports whether the dump numbered seq has
// ended. It ignores messages with other numbers, which are left over.
func scan(b []byte, seq uint32, each func(*socket) error) (done bool, err error) {
	var s socket
	for len(b) > 0 {
		typ, n, body, rest, err := nextMessage(b)
		if err != nil {
			return false, err
		}
		b = rest
		if n != seq {
			continue
		}
		switch typ {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			return true, status(body)
		case unix.NLMSG_NOOP:
		case tcpdiagGetSock, unix.SOCK_DIAG_BY_FAMILY:
			if err := s.parse(body); err != nil {
				return false, err
			}
			if err := each(&s); err != nil {
				return false, err
			}
		default:
			return false, fmt.Errorf("%w: type %d", errMalformed, typ)
		}
	}
	return false, nil
}

// nextMessage cuts one message off b (struct nlmsghdr, netlink(7)).
func nextMessage(b []byte) (typ uint16, seq uint32, body, rest []byte, err error) {
	if len(b) < unix.SizeofNlMsghdr {
		return 0, 0, nil, nil, fmt.Errorf("%w: %d bytes for a header", errMalformed, len(b))
	}
	size := binary.NativeEndian.Uint32(b)
	if size < unix.SizeofNlMsghdr || uint64(size) > uint64(len(b)) {
		return 0, 0, nil, nil, fmt.Errorf("%w: length %d of %d", errMalformed, size, len(b))
	}
	typ = binary.NativeEndian.Uint16(b[4:])
	seq = binary.NativeEndian.Uint32(b[8:])
	return typ, seq, b[unix.SizeofNlMsghdr:size], b[min(align(int(size)), len(b)):], nil
}

// status reads the error number that NLMSG_ERROR and NLMSG_DONE carry.
func status(body []byte) error {
	if len(body) < 4 {
		return fmt.Errorf("%w: no status", errMalformed)
	}
	code := int32(binary.NativeEndian.Uint32(body))
	if code >= 0 {
		return nil
	}
	return fmt.Errorf("dump sockets: %w", os.NewSyscallError("netlink", unix.Errno(-code)))
}

func (s *socket) parse(b []byte) error {
	if len(b) < msgLen {
		return fmt.Errorf("%w: %d bytes for a socket", errMalformed, len(b))
	}
	*s = socket{
		state: b[msgState],
		port:  binary.BigEndian.Uint16(b[msgPort:]),
		// Two words, the low one first on every machine (inet_diag_msg_common_fill,
		// sock_diag_save_cookie).
		cookie: uint64(binary.NativeEndian.Uint32(b[msgCookie:])) | uint64(binary.NativeEndian.Uint32(b[msgCookie+4:]))<<32,
		rqueue: binary.NativeEndian.Uint32(b[msgRqueue:]),
		wqueue: binary.NativeEndian.Uint32(b[msgWqueue:]),
		inode:  binary.NativeEndian.Uint32(b[msgInode:]),
	}
	for b = b[msgLen:]; len(b) >= unix.SizeofNlAttr; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return fmt.Errorf("%w: attribute length %d of %d", errMalformed, size, len(b))
		}
		value := b[unix.SizeofNlAttr:size]
		switch binary.NativeEndian.Uint16(b[2:]) & attrType {
		case attrCgroup:
			if len(value) != 8 {
				return fmt.Errorf("%w: cgroup id of %d bytes", errMalformed, len(value))
			}
			s.cgroup, s.hasCgroup = binary.NativeEndian.Uint64(value), true
		case attrInfo:
			s.info, s.hasInfo = parseInfo(value)
		}
		b = b[min(align(size), len(b)):]
	}
	return nil
}

// parseInfo reads struct tcp_info, which grows at its end: ok is false on a kernel (before 4.6)
// whose struct ends too early.
func parseInfo(b []byte) (i info, ok bool) {
	var t unix.TCPInfo
	const end = unsafe.Offsetof(t.Data_segs_out) + unsafe.Sizeof(t.Data_segs_out)
	if len(b) < int(end) {
		return info{}, false
	}
	age := func(offset uintptr) time.Duration {
		return time.Duration(binary.NativeEndian.Uint32(b[offset:])) * time.Millisecond
	}
	return info{
		sinceSent: age(unsafe.Offsetof(t.Last_data_sent)),
		sinceRecv: age(unsafe.Offsetof(t.Last_data_recv)),
		sinceAck:  age(unsafe.Offsetof(t.Last_ack_recv)),
		segsIn:    binary.NativeEndian.Uint32(b[unsafe.Offsetof(t.Data_segs_in):]),
		segsOut:   binary.NativeEndian.Uint32(b[unsafe.Offsetof(t.Data_segs_out):]),
	}, true
}

// align rounds up to the 4 bytes of netlink (NLMSG_ALIGN, NLA_ALIGN).
func align(n int) int { return (n + 3) &^ 3 }
