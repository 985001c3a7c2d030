package steer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Snapshot is the state of a listener when an instance got it. Every holder of a listener may shut
// it down and change its options, and the next process would inherit that: Resume and Restore
// restore what they can. The zero Snapshot is empty; Resume then only makes the socket listen. A
// Snapshot is a value and owns no descriptor.
//
// SO_BINDTODEVICE, TCP_WINDOW_CLAMP and keys of TCP_MD5SIG and TCP-AO cannot be restored without
// privileges. They harm only connections of this one listener, and end with it.
type Snapshot struct {
	backlog int
	values  []string // of listenerOptions, as the kernel tells them
	known   []bool   // false where the socket has no such option
}

// listenerOption is an option that accepted connections inherit, or that decides whether
// connections arrive at all.
type listenerOption struct {
	name          string
	level, option int
	as            restoring
}

// restoring is the way to restore an option.
type restoring uint8

const (
	asRead restoring = iota
	halved           // an int that reads as twice what was set (socket(7))
	unset            // by the int 0; what it reads as then depends on other options
)

// Restored in this order: SO_BUF_LOCK after the buffers, as setting those sets it too.
var listenerOptions = [...]listenerOption{
	{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, asRead},
	{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, asRead},
	{"SO_OOBINLINE", unix.SOL_SOCKET, unix.SO_OOBINLINE, asRead},
	{"SO_DONTROUTE", unix.SOL_SOCKET, unix.SO_DONTROUTE, asRead},
	{"SO_LINGER", unix.SOL_SOCKET, unix.SO_LINGER, asRead},
	{"SO_RCVTIMEO", unix.SOL_SOCKET, unix.SO_RCVTIMEO, asRead},
	{"SO_SNDTIMEO", unix.SOL_SOCKET, unix.SO_SNDTIMEO, asRead},
	{"SO_RCVLOWAT", unix.SOL_SOCKET, unix.SO_RCVLOWAT, asRead},
	{"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, asRead},
	{"SO_MAX_PACING_RATE", unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, asRead},
	{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, halved},
	{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, halved},
	{"SO_BUF_LOCK", unix.SOL_SOCKET, unix.SO_BUF_LOCK, asRead},
	{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, asRead},
	{"TCP_CORK", unix.IPPROTO_TCP, unix.TCP_CORK, asRead},
	{"TCP_DEFER_ACCEPT", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, asRead},
	{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, asRead},
	{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, asRead},
	{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, asRead},
	{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, asRead},
	{"TCP_LINGER2", unix.IPPROTO_TCP, unix.TCP_LINGER2, asRead},
	{"TCP_SYNCNT", unix.IPPROTO_TCP, unix.TCP_SYNCNT, asRead},
	{"TCP_MAXSEG", unix.IPPROTO_TCP, unix.TCP_MAXSEG, unset},
	{"TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, asRead},
	{"TCP_FASTOPEN", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, asRead},
	{"TCP_CONGESTION", unix.IPPROTO_TCP, unix.TCP_CONGESTION, asRead},
	{"IP_OPTIONS", unix.IPPROTO_IP, unix.IP_OPTIONS, asRead},
	{"IP_TOS", unix.IPPROTO_IP, unix.IP_TOS, asRead},
	{"IP_TTL", unix.IPPROTO_IP, unix.IP_TTL, asRead},
	{"IP_MINTTL", unix.IPPROTO_IP, unix.IP_MINTTL, asRead},
	{"IP_MTU_DISCOVER", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, asRead},
	{"IPV6_TCLASS", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, asRead},
	{"IPV6_UNICAST_HOPS", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, asRead},
	{"IPV6_MINHOPCOUNT", unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, asRead},
	{"IPV6_MTU_DISCOVER", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, asRead},
}

// TakeSnapshot reads a listener, which it borrows. It costs about 40 system calls.
func TakeSnapshot(listener int) (Snapshot, error) {
	_, backlog, err := Queue(listener)
	if err != nil {
		return Snapshot{}, fmt.Errorf("take snapshot of listener: %w", err)
	}
	s := Snapshot{backlog: backlog}
	for _, o := range listenerOptions {
		value, err := o.read(listener)
		s.values, s.known = append(s.values, value), append(s.known, err == nil)
	}
	return s, nil
}

// Zero reports whether s is the zero Snapshot.
func (s Snapshot) Zero() bool { return s.known == nil }

// The faults that Resume finds.
const (
	NotListening = "it did not listen"
	SmallBacklog = "its backlog was made smaller"
)

// Resume makes the socket listen if it does not, with at least its earlier backlog, and returns
// what was wrong, or an empty string. The caller puts the listener into its slot again, because the
// kernel empties a slot when the socket stops listening. The waiting connections moved to others at
// that time, if the program was attached. Resume costs one system call if nothing is wrong.
func (s Snapshot) Resume(listener int) (wrong string, err error) {
	info, err := unix.GetsockoptTCPInfo(listener, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return "", fmt.Errorf("look at listener: getsockopt TCP_INFO: %w", err)
	}
	listens := info.State == tcpListen
	if listens && int(info.Sacked) >= s.backlog {
		return "", nil
	}
	if listens {
		wrong = SmallBacklog
	} else {
		wrong = NotListening
		// Somebody may have connected the socket, or shut it down twice. The kernel remembers the
		// second time, and every later connection of the listener reads end-of-file after its first
		// bytes. Disconnecting clears both and keeps the address.
		if err := disconnect(listener); err != nil {
			return "", fmt.Errorf("resume listener: connect AF_UNSPEC: %w", err)
		}
		// Without SO_REUSEPORT the listener could not return to the group.
		if err := unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return "", fmt.Errorf("resume listener: setsockopt SO_REUSEPORT: %w", err)
		}
	}
	backlog := s.backlog
	if backlog == 0 {
		backlog = unix.SOMAXCONN
	}
	err = unix.Listen(listener, backlog)
	if err != nil {
		return "", fmt.Errorf("resume listener: listen: %w", err)
	}
	return wrong, nil
}

// Restore restores the options and returns the names of those that differed, separated by commas.
// It is for a listener whose program has ended, or may not change options.
func (s Snapshot) Restore(listener int) (differed string, err error) {
	var names []string
	var errs []error
	for i, o := range listenerOptions {
		if i >= len(s.known) || !s.known[i] {
			continue
		}
		if is, err := o.read(listener); err == nil && is == s.values[i] {
			continue
		}
		if err := unix.SetsockoptString(listener, o.level, o.option, o.restored(s.values[i])); err != nil {
			errs = append(errs, fmt.Errorf("restore listener: setsockopt %s: %w", o.name, err))
			continue
		}
		names = append(names, o.name)
		if o.as == unset {
			if s.values[i], err = o.read(listener); err != nil {
				errs = append(errs, fmt.Errorf("restore listener: %w", err))
			}
		}
	}
	return strings.Join(names, ", "), errors.Join(errs...)
}

// restored returns the value to set for an option that was read as value.
func (o listenerOption) restored(value string) string {
	if o.as == asRead {
		return value
	}
	n := make([]byte, 4)
	if o.as == halved && len(value) == len(n) {
		binary.NativeEndian.PutUint32(n, binary.NativeEndian.Uint32([]byte(value))/2)
	}
	return string(n)
}

// read returns an option's value in the form that getsockopt(2) returns. The longest is IP_OPTIONS,
// of 40 bytes.
func (o listenerOption) read(listener int) (string, error) {
	var value [64]byte
	size := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(listener), uintptr(o.level), uintptr(o.option),
		uintptr(unsafe.Pointer(&value)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return "", fmt.Errorf("getsockopt %s: %w", o.name, errno)
	}
	return string(value[:size]), nil
}

// disconnect is connect(2) with AF_UNSPEC, which package unix does not offer.
func disconnect(fd int) error {
	var unspecified unix.RawSockaddr
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unsafe.Sizeof(unspecified))
	if errno != 0 {
		return errno
	}
	return nil
}
