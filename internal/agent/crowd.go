package agent

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// crowd is the clients that are being served, and decides who makes room for whom. A client that
// has asked is answered, and ends by itself, soon. One that has not may be there for the place
// alone. So the one that came first is answered at once, on what it has said so far, when its peer
// has too many such clients or all places are taken.
type crowd struct {
	mu      sync.Mutex
	left    *sync.Cond // a client has left
	clients []*client  // the oldest first
}

type client struct {
	net.Conn
	crowd *crowd
	peer  string // as peerOf says
	asked bool   // it has said all it has to say, or all that it may
}

func newCrowd() *crowd {
	c := &crowd{}
	c.left = sync.NewCond(&c.mu)
	return c
}

// admit returns the client of conn as soon as there is a place for it, which it has until leave.
func (c *crowd) admit(conn net.Conn) *client {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := &client{Conn: conn, crowd: c, peer: peerOf(conn)}
	if all := c.silent(one.peer); one.peer != "" && len(all) >= maxOfPeer {
		all[0].cut()
	}
	for len(c.clients) >= maxClients {
		if all := c.silent(""); len(all) > 0 {
			all[0].cut()
		}
		c.left.Wait() // for answerTime at most
	}
	c.clients = append(c.clients, one)
	return one
}

// silent are the clients that have not asked yet, of one peer or, if that is empty, of all.
func (c *crowd) silent(peer string) (all []*client) {
	for _, one := range c.clients {
		if !one.asked && (peer == "" || one.peer == peer) {
			all = append(all, one)
		}
	}
	return all
}

// cut ends what the client may say. The caller has the lock.
func (c *client) cut() {
	c.asked = true
	_ = c.SetReadDeadline(time.Unix(0, 1)) // long ago; a client that has left needs none
}

// hears sets until when the client may speak. If it was cut, that stays so.
func (c *client) hears(until time.Time) {
	c.crowd.mu.Lock()
	defer c.crowd.mu.Unlock()
	if !c.asked {
		_ = c.SetReadDeadline(until) // one that has left shows in the next read
	}
}

// hasAsked says that the client has said all.
func (c *client) hasAsked() {
	c.crowd.mu.Lock()
	defer c.crowd.mu.Unlock()
	c.asked = true
}

// leave gives the client's place back.
func (c *client) leave() {
	c.crowd.mu.Lock()
	defer c.crowd.mu.Unlock()
	c.crowd.clients = slices.DeleteFunc(c.crowd.clients, func(other *client) bool { return other == c })
	c.crowd.left.Signal()
}

// peerOf is what tells one peer from another: an IPv4 address, the network of an IPv6 address, of
// which one host may have all addresses, or the user at the other end of a unix socket. It is empty
// if that is not known.
func peerOf(conn net.Conn) string {
	if c, ok := conn.(*net.UnixConn); ok {
		return userOf(c)
	}
	at, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	addr := at.Addr().Unmap()
	if addr.Is4() {
		return addr.String()
	}
	const network = 64 // bits
	return netip.PrefixFrom(addr.WithZone(""), network).Masked().String()
}

func userOf(conn *net.UnixConn) string {
	raw, err := conn.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}) != nil || err != nil {
		return ""
	}
	return "user " + strconv.Itoa(int(cred.Uid))
}
