package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
)

const (
	// maxStrangers is the maximum number of unknown members of the group: listeners that PID 1 has
	// opened and nobody has put yet.
	maxStrangers = 64

	// A probe is over when connect returns, as loopback delivers at once; but on a busy machine a
	// kernel thread may do it a little later.
	probeTries = 20
	probePause = 1 // milliseconds
)

// order finds the index of each member in the group. The kernel orders members by their listen()
// calls, and the last member takes the place of a closed one. No interface reports the order, so
// order probes each index.
//
// A probe is a connection request with a TCP-MD5 signature (RFC 2385). A listener without keys
// drops it before anything else and counts it in its SO_MEMINFO drops. So the instance never sees a
// probe. A probe needs no privilege, but CONFIG_TCP_MD5SIG, which is off in FIPS mode.
func (c *Classic) order() (map[int]int, error) {
	index := make(map[int]int)
	for i := 0; len(index) < len(c.members); i++ {
		if i == len(c.members)+maxStrangers {
			return nil, fmt.Errorf("%d of %d listeners found: %w", len(index), len(c.members), ErrOrder)
		}
		slot, found, err := c.occupant(uint32(i))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("probe member %d: %w", i, err), ErrOrder)
		}
		if !found {
			continue
		}
		if at, twice := index[slot]; twice {
			return nil, fmt.Errorf("slot %d answers as member %d and %d: %w", slot, at, i, ErrOrder)
		}
		index[slot] = i
	}
	return index, nil
}

// occupant finds the slot of the member at an index; false if it is a stranger. Somebody else's
// packet may be dropped while we look, so an answer counts when it comes twice in a row.
func (c *Classic) occupant(index uint32) (slot int, found bool, err error) {
	const tries = 5
	previous := -1
	for range tries {
		dropped, err := c.probe(index)
		if err != nil {
			return 0, false, err
		}
		switch {
		case len(dropped) == 0 && previous == -1:
			return 0, false, nil
		case len(dropped) == 1 && dropped[0] == previous:
			return previous, true, nil
		case len(dropped) == 1:
			previous = dropped[0]
		default:
			previous = -2
		}
	}
	return 0, false, errors.New("answers differ")
}

// probe sends one probe to an index, and returns the slots whose listeners dropped something
// meanwhile. All other connections are steered as before.
func (c *Classic) probe(index uint32) ([]int, error) {
	to := sock.Local(c.address.Address)[0]
	fd, from, err := openProbe(to)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	otherwise := c.program
	if otherwise == nil {
		otherwise = []unix.SockFilter{give(byHash)}
	}
	if err := attachClassic(c.members[Parking], except(from, index, otherwise)); err != nil {
		return nil, err
	}
	before, err := c.drops()
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, sock.Sockaddr(to)); err != unix.EINPROGRESS {
		return nil, fmt.Errorf("connect to %v: got %v, not EINPROGRESS", to, err)
	}
	for range probeTries {
		after, err := c.drops()
		if err != nil {
			return nil, err
		}
		var dropped []int
		for slot, n := range after {
			if n != before[slot] {
				dropped = append(dropped, slot)
			}
		}
		if len(dropped) > 0 {
			return dropped, nil
		}
		unix.Poll(nil, probePause)
	}
	return nil, nil
}

// openProbe opens a socket that will sign what it sends to an address, bound to that same address:
// both ends are on this host. The caller closes it.
func openProbe(to netip.AddrPort) (fd int, from netip.AddrPort, err error) {
	fd, err = unix.Socket(sock.Family(to.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, from, fmt.Errorf("socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := unix.Bind(fd, sock.Sockaddr(netip.AddrPortFrom(to.Addr(), 0))); err != nil {
		return -1, from, fmt.Errorf("bind %v: %w", to.Addr(), err)
	}
	if from, err = sock.Name(fd); err != nil {
		return -1, from, err
	}
	key := unix.TCPMD5Sig{Keylen: 1, Key: [80]byte{1}}
	if to.Addr().Is4() {
		peer := (*unix.RawSockaddrInet4)(unsafe.Pointer(&key.Addr))
		*peer = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4()}
	} else {
		peer := (*unix.RawSockaddrInet6)(unsafe.Pointer(&key.Addr))
		*peer = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16()}
	}
	if err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &key); err != nil {
		return -1, from, fmt.Errorf("setsockopt TCP_MD5SIG: %w", err)
	}
	return fd, from, nil
}

// drops returns how many packets each member dropped.
func (c *Classic) drops() (map[int]uint32, error) {
	all := make(map[int]uint32, len(c.members))
	for slot, fd := range c.members {
		n, err := dropsOf(fd)
		if err != nil {
			return nil, err
		}
		all[slot] = n
	}
	return all, nil
}

// dropsOf returns SK_MEMINFO_DROPS, the last of the nine words of SO_MEMINFO (linux/sock_diag.h).
func dropsOf(fd int) (uint32, error) {
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, fmt.Errorf("getsockopt SO_MEMINFO: %w", errno)
	}
	return info[8], nil
}
