package handoff

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff/wire"
)

// loadLocked returns the load of an instance to the picker.
func (d *Dispatcher) loadLocked(id int) (connections int, ok bool) {
	b := d.backends[id]
	if b == nil || !b.ready || b.full || b.resting || b.report.Closing {
		return 0, false
	}
	connections = b.report.Open() + b.pending
	return connections, b.pending < d.limitLocked(b) && (d.most == 0 || connections < d.most)
}

// limitLocked returns how many unanswered connections a backend may have.
func (d *Dispatcher) limitLocked(b *backend) int {
	switch {
	case b.receiver != nil:
		return maxUnanswered
	case d.sees:
		return maxGiven
	}
	return maxPending
}

// anybodyLocked reports whether any instance can take a connection.
func (d *Dispatcher) anybodyLocked() bool {
	for _, m := range d.picker.Members() {
		if _, ok := d.loadLocked(m.ID); ok {
			return true
		}
	}
	return false
}

// roomLocked reports whether the next connection can be placed, whatever its source. An accepted
// connection must go to the instance of its source, so nothing is accepted while an instance has
// all the connections that it may have unanswered. An instance that hangs leaves the ring.
func (d *Dispatcher) roomLocked() bool {
	for _, m := range d.picker.Members() {
		b := d.backends[m.ID]
		if d.sees && b != nil && b.ready && !b.report.Closing && (b.full || b.pending >= d.limitLocked(b)) {
			return false
		}
	}
	return d.anybodyLocked()
}

func (d *Dispatcher) dispatchAllLocked() {
	d.placeStrandedLocked()
	for _, l := range d.listeners {
		d.dispatchLocked(l)
	}
}

// dispatchBehindLocked continues after an answer: there is room again, or an order found no
// connection.
func (d *Dispatcher) dispatchBehindLocked() {
	d.placeStrandedLocked()
	for _, l := range d.listeners {
		if l.behind {
			d.dispatchLocked(l)
		}
	}
}

// dispatchLocked distributes the connections that wait at a listener.
func (d *Dispatcher) dispatchLocked(l *listener) {
	d.lookLocked()
	if !d.roomLocked() {
		l.behind = true
		return
	}
	if d.sees || d.options.Receivers {
		l.behind = d.acceptLocked(l)
	} else {
		l.behind = d.orderLocked(l)
	}
}

func (d *Dispatcher) numberLocked(l *listener) int {
	for i := range d.listeners {
		if d.listeners[i] == l {
			return i
		}
	}
	return -1
}

// orderLocked orders instances to accept the waiting connections, except those ordered already. It
// reports whether some may be left.
func (d *Dispatcher) orderLocked(l *listener) (behind bool) {
	i := d.numberLocked(l)
	for looks := 1; ; looks++ {
		waiting, exact, err := d.options.Waiting(l.fd)
		if err != nil {
			d.options.Log.Error("count waiting connections, ignoring", "error", err)
			return true
		}
		moved, sure := d.lookLocked()
		ordered := 0
		for _, m := range d.picker.Members() {
			if b := d.backends[m.ID]; b != nil {
				ordered += b.ordered(i)
			}
		}
		need := waiting - ordered
		if moved && need > 0 && looks < maxLooks {
			continue // an order was carried out since they were counted, which makes need too large
		}
		picked := d.pickLocked(need)
		sent := d.sendTakesLocked(i)
		switch {
		case sent < picked: // a channel has failed, or is full: others are picked next
		case picked < need:
			return true
		case !exact && waiting > 0:
			return true
		case waiting == 0 || ordered == 0 || sure && !moved:
			return false
		case looks == maxLooks:
			return true // an order may be carried out and not counted yet, which makes need too small
		}
	}
}

// pickLocked picks instances for n connections, or for fewer if no more instances can take one.
func (d *Dispatcher) pickLocked(n int) (picked int) {
	for picked < n {
		id, ok := d.picker.Pick(d.loadLocked, nil)
		if !ok {
			break
		}
		b := d.backends[id]
		b.batch++
		b.pending++
		picked++
	}
	return picked
}

// sendTakesLocked sends the orders for the instances that pickLocked picked, and returns the number
// of connections in them.
func (d *Dispatcher) sendTakesLocked(listener int) (sent int) {
	for _, m := range d.picker.Members() {
		b := d.backends[m.ID]
		if b == nil || b.batch == 0 {
			continue
		}
		n := b.batch
		b.batch = 0
		if !d.sayLocked(b, wire.Message{Kind: wire.Take, Listener: listener, Count: n}) {
			b.pending -= n
			continue
		}
		b.orders = append(b.orders, order{listener: listener, count: n, at: time.Now()})
		d.given[b.id] += uint64(n)
		sent += n
	}
	return sent
}

// sayLocked sends a message and reports whether it was sent. The event of a failed channel ends the
// channel.
func (d *Dispatcher) sayLocked(b *backend, m wire.Message, fds ...int) bool {
	err := send(b.fd, m, fds)
	b.full = err != nil
	return err == nil
}

// acceptLocked accepts the waiting connections and gives each to an instance at once, because an
// accepted connection that is not sent dies with this process. It reports whether some may be left.
func (d *Dispatcher) acceptLocked(l *listener) (behind bool) {
	i := d.numberLocked(l)
	for d.roomLocked() {
		c, err := accept(l.fd)
		if errors.Is(err, unix.EAGAIN) {
			return false
		}
		if err != nil {
			d.options.Log.Error("accept connection, ignoring", "error", err)
			return true
		}
		c.listener = i
		d.assignLocked(c)
		d.sendGivesLocked()
		d.placeStrandedLocked()
	}
	return true
}

// assignLocked picks an instance for an accepted connection.
func (d *Dispatcher) assignLocked(c connection) {
	id, ok := d.picker.Pick(d.loadLocked, c.peer.Address.AsSlice())
	if !ok {
		d.stranded = append(d.stranded, c)
		return
	}
	b := d.backends[id]
	b.gives = append(b.gives, c)
	b.pending++
}

// placeStrandedLocked gives connections that lost their instance to other instances, in their order
// of arrival.
func (d *Dispatcher) placeStrandedLocked() {
	for len(d.stranded) > 0 && d.anybodyLocked() {
		all := d.stranded
		d.stranded = nil
		for _, c := range all {
			d.assignLocked(c)
		}
		d.sendGivesLocked()
	}
}

// sendGivesLocked sends the assigned connections, several in a message. Connections that cannot be
// sent become stranded.
func (d *Dispatcher) sendGivesLocked() {
	for _, b := range d.backends {
		all := b.gives
		b.gives = nil
		for len(all) > 0 {
			n := b.together(all)
			if !d.giveLocked(b, all[:n]) {
				d.stranded = append(d.stranded, all...)
				b.pending -= len(all)
				break
			}
			all = all[n:]
		}
	}
}

func (d *Dispatcher) giveLocked(b *backend, all []connection) bool {
	if b.receiver != nil {
		return d.giveToReceiverLocked(b, all[0])
	}
	m := wire.Message{Kind: wire.Give, Listener: all[0].listener, Count: len(all)}
	fds := make([]int, len(all))
	for i, c := range all {
		m.Peers = append(m.Peers, c.peer)
		fds[i] = c.fd
	}
	if !d.sayLocked(b, m, fds...) {
		return false
	}
	b.orders = append(b.orders, order{listener: all[0].listener, count: len(all), at: time.Now(), given: all})
	d.given[b.id] += uint64(len(all))
	return true
}

// together returns how many of all fit into one message.
func (b *backend) together(all []connection) int {
	n := 1
	for b.receiver == nil && n < len(all) && n < wire.MaxGive && all[n].listener == all[0].listener {
		n++
	}
	return n
}

// Give gives a connection to an instance, on the ring or not. The Dispatcher owns fd. Give returns
// false if the instance receives no connections. If the instance ends before it has answered,
// another instance gets the connection.
func (d *Dispatcher) Give(id, fd int) (ok bool) {
	d.locked(func() {
		b := d.backends[id]
		if b != nil && b.ready && !b.report.Closing {
			b.pending++
			if ok = d.giveLocked(b, []connection{{fd: fd}}); !ok {
				b.pending--
			}
		}
	})
	if !ok {
		unix.Close(fd)
	}
	return ok
}

// accept accepts one connection; the error is unix.EAGAIN if none waits. accept4 of package syscall
// saves the system call with which package unix reads the protocol of each connection.
func accept(listener int) (connection, error) {
	for {
		fd, from, err := syscall.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			return connection{fd: fd, peer: peerOf(from)}, nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED): // the client has left
		default:
			return connection{}, os.NewSyscallError("accept4", err)
		}
	}
}

func peerOf(from syscall.Sockaddr) wire.Peer {
	switch a := from.(type) {
	case *syscall.SockaddrInet4:
		return wire.Peer{Address: netip.AddrFrom4(a.Addr), Port: uint16(a.Port)}
	case *syscall.SockaddrInet6:
		return wire.Peer{Address: netip.AddrFrom16(a.Addr), Port: uint16(a.Port), Scope: a.ZoneId}
	}
	return wire.Peer{}
}
