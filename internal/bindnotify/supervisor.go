package bindnotify

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Supervisor answers the calls of one program and its children. It is not safe for concurrent use.
type Supervisor struct {
	Listeners   []Listener // of the instance, in the order of the app's addresses
	ProgramPort uint16     // what the program says for the app's port; zero: it says that port
	Learn       bool       // gives each TCP socket a listener of the loopback interface instead, to see where the program listens

	// Note is called for each new fact, with a limit for each kind.
	Note func(Fact)

	kernel kernel
	calls  calls
	facts  facts
	own    bound
}

// outcome is the answer to a call: it returns 0 without having been executed, or the kernel
// executes it.
type outcome uint32

const (
	done outcome = 0
	goOn outcome = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// serve answers until no process is left that could call. An error means that no further call can
// be answered.
func (s *Supervisor) serve() error {
	s.calls = nativeCalls()
	for {
		ended, err := s.kernel.wait()
		if err != nil || ended {
			return err
		}
		var n notification
		switch err := s.kernel.receive(&n); err {
		case nil:
		case unix.ENOENT:
			continue
		default:
			return fmt.Errorf("receive call: %w", err)
		}
		if err := s.kernel.send(answer{id: n.id, flags: uint32(s.decide(&n))}); err != nil {
			return err
		}
	}
}

func (s *Supervisor) decide(n *notification) outcome {
	switch n.number {
	case s.calls.bind:
		return s.bind(n)
	case s.calls.listen:
		return s.listen(n)
	case s.calls.setsockopt:
		return s.steering(n)
	case s.calls.seccomp:
		if n.arguments[2] == 0 {
			break // no filter: libseccomp asks so whether the kernel knows the flag
		}
		s.note(Fact{Kind: WantsNotification, Program: caller{int(n.pid)}.name()})
	case s.calls.ioUringSetup:
		s.note(Fact{Kind: UsesIOUring, Program: caller{int(n.pid)}.name()})
	}
	return goOn
}

// bind answers bind(fd, address, length).
func (s *Supervisor) bind(n *notification) outcome {
	c := caller{int(n.pid)}
	var memory [longestAddress]byte
	length, err := c.memory(memory[:min(uint64(len(memory)), uint64(uint32(n.arguments[2])))], n.arguments[1])
	if err != nil {
		return s.hidden(n, c, err)
	}
	raw := memory[:length]
	if !mayBeOurs(raw) {
		return goOn
	}
	own, err := c.look(n.fd(0))
	if err != nil {
		return s.hidden(n, c, err)
	}
	ask, ok := parseAddress(own.domain, raw)
	if !ok || own.protocol == "" || !s.kernel.valid(n.id) {
		return goOn
	}
	f := Fact{Kind: Binds, Protocol: own.protocol, Address: ask, IPv6: own.domain == unix.AF_INET6, Program: c.name()}
	if own.protocol != "tcp" {
		s.note(f)
		return goOn
	}
	if s.Learn {
		return s.learn(n, c, own, f)
	}
	i, how := pick(s.Listeners, s.ProgramPort, own.domain, ask)
	if how != noFit {
		f.Kind, f.Listener = [...]FactKind{noFamily: OtherFamily, fitsWider: Widened, fits: Answered}[how], s.Listeners[i].Address
	}
	if how == noFit || how == noFamily {
		s.own.put(own.id, ask)
		s.note(f)
		return goOn
	}
	return s.give(n, c, own, socket(s.Listeners[i].FD), f)
}

// give puts a listener over the program's own socket.
func (s *Supervisor) give(n *notification, c caller, own look, listener socket, f Fact) outcome {
	if duplicate, err := c.duplicate(n.fd(0)); err == nil { // else a filter of the unit forbids it
		copyOptions(duplicate, listener, own.domain)
		duplicate.close()
	}
	if err := listener.setNonblocking(own.nonblocking); err != nil {
		return goOn
	}
	var flags uint32
	if own.closesOnExec {
		flags = unix.O_CLOEXEC
	}
	if err := s.kernel.replace(n.id, listener, n.fd(0), flags); err != nil {
		return goOn // the caller is gone, or has closed the descriptor meanwhile
	}
	s.note(f)
	return done
}

// listen answers listen(fd, backlog). The listener keeps the app's backlog: the program's, 5 for
// Python, would cut it.
func (s *Supervisor) listen(n *notification) outcome {
	c := caller{int(n.pid)}
	own, err := c.look(n.fd(0))
	if err != nil {
		return s.hidden(n, c, err)
	}
	if own.protocol != "tcp" || !s.kernel.valid(n.id) {
		return goOn
	}
	f := Fact{Kind: Listens, Protocol: own.protocol, IPv6: own.domain == unix.AF_INET6, Program: c.name()}
	if l := s.listener(own.id); l != nil {
		f.Kind, f.Address, f.Listener = Serves, l.Address, l.Address
		s.note(f)
		if socket(l.FD).listens() {
			return done
		}
		return goOn // somebody has shut it down
	}
	// A socket without a seen bind has a port of the kernel's choice, and there may be any number
	// of those.
	if address, ok := s.own.address(own.id); ok {
		f.Address = address
		s.note(f)
	}
	return goOn
}

// listener is the one of the instance that a socket is; nil for other sockets.
func (s *Supervisor) listener(id socketID) *Listener {
	for i := range s.Listeners {
		if s.Listeners[i].socket == id {
			return &s.Listeners[i]
		}
	}
	return nil
}

// steering answers a setsockopt(2) that would replace the program which steers the whole port: it
// has no effect on the app's listeners.
func (s *Supervisor) steering(n *notification) outcome {
	own, err := caller{int(n.pid)}.look(n.fd(0))
	if err == nil && s.kernel.valid(n.id) && s.listener(own.id) != nil {
		return done
	}
	return goOn
}

// learn gives the program a listener that nothing else uses, so that the program continues whether
// its port is free or not, and nothing is open to the network meanwhile.
func (s *Supervisor) learn(n *notification, c caller, own look, f Fact) outcome {
	fd, err := unix.Socket(own.domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return goOn
	}
	private := socket(fd)
	defer private.close()
	var local unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if own.domain == unix.AF_INET6 {
		local = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
	}
	id, ok := private.id()
	if err := unix.Bind(fd, local); err != nil || !ok {
		return goOn
	}
	given := s.give(n, c, own, private, f)
	if given == done {
		s.own.put(id, f.Address)
	}
	return given
}

// hidden lets a call of an unreadable caller continue, and reports it if the process still exists.
func (s *Supervisor) hidden(n *notification, c caller, err error) outcome {
	if err == errUnreadable && s.kernel.valid(n.id) {
		s.note(Fact{Kind: Hidden, Reason: c.why(), Program: c.name()})
	}
	return goOn
}

func (s *Supervisor) note(f Fact) {
	if s.facts.add(f) && s.Note != nil {
		s.Note(f)
	}
}
