// Package sockdiag counts the open TCP connections of each instance exactly, from the kernel's own
// socket table: no BPF, no privilege, nothing on the data path.
//
// An accepted connection carries the cgroup of the listener it came from, for life. PID 1 creates
// each listener in the cgroup of its socket unit, so the cgroup of app@3.socket names the
// connections of instance 3, whichever process holds them. One exception: when the kernel moves the
// queue of a closed listener to another of its SO_REUSEPORT group (SELECT_OR_MIGRATE,
// net.ipv4.tcp_migrate_req), the moved connections keep the cgroup of the first one and are counted
// there until they close.
//
// The shim has PrivateNetwork=yes and may not open netlink sockets. It need not: a
// NETLINK_SOCK_DIAG socket shows the network namespace it was opened in, to whoever holds it,
// without capabilities. PID 1 opens it, by ListenNetlink=inet-diag in a socket unit (tried on
// systemd 252 and 257). Three rules for that unit:
//
//   - It holds no stream listener. PID 1 polls the sockets of a unit while its service is down, and fails the unit, which
//     closes all of them, on the EPOLLERR of a netlink socket whose queue ran over.
//   - FlushPending=yes: what a killed shim left unread would start the service again, also after a stop.
//   - One line for New, a second one for NewWatch: a socket that events pour into is of no use for dumps.
//
// A process without PrivateNetwork= but with RestrictAddressFamilies=AF_NETLINK can open one by
// Open instead.
//
// Cost: one dump is one walk of the kernel's whole TCP hash table (connections of other programs
// are skipped there, not sent), O(all sockets of the namespace) plus about 450 bytes copied for
// each connection that matches. So it is for status and for drains, not for balancing each
// connection, and nothing here runs by itself.
package sockdiag

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// MaxPorts bounds the local ports of a filter: more than any app listens on, few enough for a jump
// of classic BPF (255).
const MaxPorts = 64

// ErrNoCgroup says that the kernel does not report the cgroup of a socket: it is older than 5.8, or
// built without CONFIG_SOCK_CGROUP_DATA. Nothing can be counted by instance there.
var ErrNoCgroup = errors.New("kernel does not report the cgroup of sockets")

// bufferSize is the largest datagram of a dump: the kernel adapts to the reader's buffer up to this
// (net/netlink/af_netlink.c, netlink_recvmsg), so that a dump takes the fewest calls.
const bufferSize = 32 << 10

// Filter says which connections to look at. The kernel applies Ports and Cgroup.
type Filter struct {
	// Ports are local ports, 1 to MaxPorts of them.
	Ports []uint16
	// Cgroup is the id of the listener's cgroup; zero means any.
	Cgroup uint64
	// Quiet is how long nothing may have moved for a connection to be quiet; zero means
	// DefaultQuiet. See Stat.
	Quiet time.Duration
}

// Connection is an open connection.
type Connection struct {
	Cookie   uint64 // as Cookie tells of a descriptor
	Cgroup   uint64 // of the listener that it came to
	Accepted bool   // a process has taken it from a queue
}

// Listener is a listening socket.
type Listener struct {
	Cookie  uint64 // as Cookie tells of a descriptor
	Cgroup  uint64 // of the socket and of every connection that comes from it
	Port    uint16
	Queued  int // connections waiting for accept(2)
	Backlog int // limit of Queued
}

// Conn asks the kernel for sockets. Safe for concurrent use; dumps run one after another.
type Conn struct {
	mu  sync.Mutex
	fd  int // -1 once closed
	seq uint32
	buf []byte
}

// Open opens a descriptor for New or NewWatch in the caller's own network namespace. The caller
// closes it, or hands it to one of them.
func Open() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1, fmt.Errorf("open netlink socket: %w", os.NewSyscallError("socket", err))
	}
	// An unbound socket has the kernel's own address, and gets no multicast, as the sender does not
	// (af_netlink.c, do_one_broadcast).
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("open netlink socket: %w", os.NewSyscallError("bind", err))
	}
	return fd, nil
}

// New makes a Conn of a NETLINK_SOCK_DIAG socket, which it owns from then on; if New fails the
// descriptor stays the caller's. The flags of the open file description, shared with PID 1, are not
// touched.
func New(fd int) (*Conn, error) {
	if err := check(fd); err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	return &Conn{fd: fd, buf: make([]byte, bufferSize)}, nil
}

// Close closes the descriptor. It waits for a dump that runs.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return os.ErrClosed
	}
	fd := c.fd
	c.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// CountBy counts the connections that f accepts under each of the keys that keys appends for them,
// in one dump of both address families. It calls keys once for each connection, with an empty
// slice. A key without connections has no entry. The error is ErrNoCgroup on a kernel that does not
// report cgroups.
//
// The table changes while it is read: connections that open or close meanwhile may be counted or
// not, but none twice.
func CountBy[K comparable](c *Conn, f Filter, keys func(Connection, []K) []K) (map[K]Stat, error) {
	quiet := f.quiet()
	stats := make(map[K]Stat)
	var under []K
	err := c.connections(f, func(s *socket) error {
		if !s.hasCgroup {
			return ErrNoCgroup
		}
		under = keys(s.connection(), under[:0])
		for _, key := range under {
			st := stats[key]
			st.add(s, quiet)
			stats[key] = st
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("count connections: %w", err)
	}
	return stats, nil
}

func (s *socket) connection() Connection {
	return Connection{Cookie: s.cookie, Cgroup: s.cgroup, Accepted: s.inode != 0}
}

// Connections calls each for every connection that f accepts, in no order, in one dump. The error
// is ErrNoCgroup on a kernel that does not report cgroups.
func (c *Conn) Connections(f Filter, each func(Connection)) error {
	err := c.connections(f, func(s *socket) error {
		if !s.hasCgroup {
			return ErrNoCgroup
		}
		each(s.connection())
		return nil
	})
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	return nil
}

// Count counts the connections that f lets through. It is for one instance (Filter.Cgroup), or for
// all of them at once on a kernel without cgroups of sockets; for each of many use CountBy,
// which costs the same.
func (c *Conn) Count(f Filter) (Stat, error) {
	var st Stat
	quiet := f.quiet()
	err := c.connections(f, func(s *socket) error {
		st.add(s, quiet)
		return nil
	})
	if err != nil {
		return Stat{}, fmt.Errorf("count connections: %w", err)
	}
	return st, nil
}

// Listeners returns the listening sockets of the given local ports, in no order. With Cookie the
// caller finds the cgroup of an instance from a dup of its listener, also where the unit's cgroup
// was removed and created again, and where no cgroup file system is mounted. Not for
// SocketProtocol=mptcp: there the descriptor is not the TCP socket and has another cookie.
func (c *Conn) Listeners(ports []uint16) ([]Listener, error) {
	var list []Listener
	req, err := dumpRequest(listenState, 0, ports, 0)
	if err != nil {
		return nil, fmt.Errorf("list listeners: %w", err)
	}
	err = c.dump(req, func(s *socket) error {
		if !s.hasCgroup {
			return ErrNoCgroup
		}
		list = append(list, Listener{
			Cookie: s.cookie, Cgroup: s.cgroup, Port: s.port,
			Queued: clamp(s.rqueue), Backlog: clamp(s.wqueue),
		})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list listeners: %w", err)
	}
	return list, nil
}

func (c *Conn) connections(f Filter, each func(*socket) error) error {
	req, err := dumpRequest(openStates, infoBit, f.Ports, f.Cgroup)
	if err != nil {
		return err
	}
	return c.dump(req, each)
}

// check refuses a descriptor that is not what PID 1 should have passed: the listeners that come
// with it look alike.
func check(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("take netlink socket %d: %w", fd, os.NewSyscallError("getsockopt", err))
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return fmt.Errorf("take netlink socket %d: %w", fd, os.NewSyscallError("getsockopt", err))
	}
	if domain != unix.AF_NETLINK || protocol != unix.NETLINK_SOCK_DIAG {
		return fmt.Errorf("take netlink socket %d: not an inet-diag netlink socket (domain %d, protocol %d)", fd, domain, protocol)
	}
	return nil
}

func clamp(n uint32) int { return int(min(n, math.MaxInt32)) }
