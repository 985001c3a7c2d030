package handed

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/steer"
)

// address is a public listener.
type address struct {
	fd    int
	tcp   netip.AddrPort
	path  string         // of a unix socket; tcp is zero then
	inode uint32         // of a unix socket
	was   steer.Snapshot // how it was; zero for a unix socket
}

func (a *address) String() string {
	if a.path != "" {
		return a.path
	}
	return a.tcp.String()
}

// Addresses is of path.Receiving.
func (p *Path) Addresses() []path.Address {
	var all []path.Address
	for _, a := range p.addresses {
		all = append(all, path.Address{TCP: a.tcp, Unix: a.path})
	}
	return all
}

func (p *Path) openAddress(fd int) (*address, error) {
	a := &address{fd: fd}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("take public listener: %w", os.NewSyscallError("getsockname", err))
	}
	switch name := name.(type) {
	case *unix.SockaddrUnix:
		a.path = name.Name
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil {
			return nil, fmt.Errorf("take public listener: %w", os.NewSyscallError("fstat", err))
		}
		a.inode = uint32(stat.Ino)
	default:
		var ok bool
		if a.tcp, ok = sock.AddrPort(name); !ok {
			return nil, fmt.Errorf("take public listener: address is %T, neither IP nor unix", name)
		}
	}
	// The instances accept from it too: the unit has NonBlocking=yes, so that this changes nothing.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("take public listener: %w", os.NewSyscallError("fcntl", err))
	}
	if err := handoff.Admit(fd); err != nil { // undoes what root did for an earlier process, see Refuse
		// That process was killed while the app stopped, and this one has not the right that
		// closing the port took.
		p.log.Error("the port stays closed until its socket unit is restarted", "address", a.String(), "error", err)
	}
	if a.path != "" {
		return a, nil
	}
	if a.was, err = steer.TakeSnapshot(fd); err == nil {
		err = steer.Lock(fd)
	}
	if err != nil {
		return nil, fmt.Errorf("take public listener: %w", err)
	}
	return a, nil
}

// Refuse is of path.Path: it takes root's rights, see handoff.Refuse.
func (p *Path) Refuse() (byRoot []int) {
	p.refused = true
	for _, a := range p.addresses {
		byRoot = append(byRoot, a.fd)
	}
	return byRoot
}

// guard puts the public listeners back, which every instance has too: one of them may have shut one
// down or changed its options. A listener that refuses connections does so on purpose.
func (p *Path) guard() []path.Harm {
	if p.refused {
		return nil
	}
	var harms []path.Harm
	for _, a := range p.addresses {
		if wrong, err := p.restore(a); err != nil || wrong != "" {
			harms = append(harms, path.Harm{Address: a.String(), What: wrong, Err: err})
		}
	}
	return harms
}

// restore puts one public listener back and says what was wrong. A unix socket that was shut down
// stays so: the kernel has no way back (unix_listen in net/unix/af_unix.c).
func (p *Path) restore(a *address) (wrong string, err error) {
	if a.was.Zero() {
		return "", p.stillOpen(a)
	}
	wrong, err = a.was.Resume(a.fd)
	if err != nil {
		return "", err
	}
	differed, err := a.was.Restore(a.fd)
	if wrong == "" && differed != "" {
		wrong = differed + " changed"
	}
	if wrong != "" {
		wrong = "the public listener was tampered with: " + wrong
	}
	return wrong, err
}

// stillOpen fails for a unix socket that was shut down.
func (p *Path) stillOpen(a *address) error {
	poll := []unix.PollFd{{Fd: int32(a.fd), Events: unix.POLLRDHUP}}
	if _, err := sock.Poll(poll, 0); err != nil {
		return fmt.Errorf("look at public listener: %w", os.NewSyscallError("poll", err))
	}
	if poll[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0 {
		return fmt.Errorf("it was shut down and refuses everybody until systemctl restart %s", p.options.App.Socket())
	}
	return nil
}

// waitingAt is queueOf for a listener.
func (p *Path) waitingAt(fd int) (n int, exact bool, err error) {
	for _, a := range p.addresses {
		if a.fd == fd {
			return p.queueOf(a)
		}
	}
	return 0, false, errors.New("no such listener")
}

// queueOf is how many connections wait at a public listener. Where the kernel does not tell, which
// is of unix sockets without app-diag.socket, it is whether there are any.
func (p *Path) queueOf(a *address) (n int, exact bool, err error) {
	if a.path == "" {
		n, _, err := steer.Queue(a.fd)
		if errors.Is(err, steer.ErrNotListening) {
			return 0, true, nil // nobody waits; the next look puts the listener back
		}
		return n, true, err
	}
	if p.diag != nil {
		if n, err = p.diag.UnixQueue(a.inode); err == nil {
			return n, true, nil
		}
		p.log.Debug("read queue of unix socket, ignoring", "address", a.String(), "error", err)
	}
	poll := []unix.PollFd{{Fd: int32(a.fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	n, err = sock.Poll(poll, 0)
	if poll[0].Revents&unix.POLLRDHUP != 0 {
		n = 0 // it was shut down: see restore
	}
	return n, false, err
}
