package steered

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/sockdiag"
)

// storedMoved is the name in the FD store of the memfd that holds the cookies.
const storedMoved = "moved"

// mostMoved bounds what is believed of the FD store: 4096 queues of one connection each would not
// move that many at once.
const mostMoved = 1 << 16

// moved are the open connections that came to one instance and that another one has accepted, or
// will: the kernel moved them. They carry the cgroup of the first one for life, so a drain must
// know them one by one.
//
// A shim that is killed leaves them in a memfd in PID 1's store, which is stored once and written
// in place.
type moved struct {
	cookies map[uint64]bool
	file    *os.File // nil until the first move
}

// beforeMove returns the connections that an instance has accepted, of one listener whose queue is
// about to be moved. Nil says that they cannot be listed.
func (p *Path) beforeMove(number int, l *listener) map[uint64]bool {
	if p.counter.conn == nil {
		return nil
	}
	own := make(map[uint64]bool)
	err := p.findCgroups()
	if err == nil {
		err = p.counter.conn.Connections(sockdiag.Filter{Ports: p.ports(), Cgroup: l.cgroup}, func(c sockdiag.Connection) {
			if c.Accepted {
				own[c.Cookie] = true
			}
		})
	}
	if err != nil {
		p.log.Warn("list connections before a move, a drain may not wait for those that are moved", "instance", number, "error", err)
		return nil
	}
	return own
}

// afterMove remembers the connections that were moved: all that carry the listener's cgroup but
// those that the instance had accepted before.
func (p *Path) afterMove(number int, l *listener, own map[uint64]bool) {
	if own == nil {
		return
	}
	now := make(map[uint64]bool)
	err := p.counter.conn.Connections(sockdiag.Filter{Ports: p.ports()}, func(c sockdiag.Connection) {
		if p.moved.cookies[c.Cookie] || c.Cgroup == l.cgroup && !own[c.Cookie] {
			now[c.Cookie] = true
		}
	})
	if err == nil {
		p.moved.cookies = now
		err = p.saveMoved()
	}
	if err != nil {
		p.log.Warn("remember connections that were moved, a drain may not wait for them", "instance", number, "error", err)
	}
}

// saveMoved writes the cookies for the next shim: their number and then each of them, in one write.
// What a later count finds closed stays there until the next move, and the next shim's first count
// leaves it out.
func (p *Path) saveMoved() error {
	m := &p.moved
	if m.file == nil {
		if !p.store.Enabled() {
			return nil
		}
		fd, err := unix.MemfdCreate(storedMoved, unix.MFD_CLOEXEC)
		if err != nil {
			return os.NewSyscallError("memfd_create", err)
		}
		m.file = os.NewFile(uintptr(fd), storedMoved)
		// What an earlier shim could not read goes first: with two of that name neither would be
		// believed.
		if err := errors.Join(p.store.Remove(storedMoved), p.store.Put(storedMoved, fd)); err != nil {
			return err
		}
	}
	_, err := m.file.WriteAt(m.encode(), 0)
	return err
}

func (m *moved) encode() []byte {
	b := binary.NativeEndian.AppendUint64(nil, uint64(len(m.cookies)))
	for cookie := range m.cookies {
		b = binary.NativeEndian.AppendUint64(b, cookie)
	}
	return b
}

// takeMoved goes on with what an earlier shim has left.
func (p *Path) takeMoved() {
	fds := p.store.Take(storedMoved)
	if len(fds) != 1 {
		sock.CloseAll(fds)
		return
	}
	m := moved{file: os.NewFile(uintptr(fds[0]), storedMoved)}
	if err := m.decode(); err != nil {
		p.log.Warn("adopt connections that were moved, ignoring", "error", err)
		m.file.Close()
		return
	}
	p.moved = m
}

// decode reads what encode has written. Whatever it reads, it costs no more than mostMoved cookies.
func (m *moved) decode() error {
	word := make([]byte, 8)
	if _, err := m.file.ReadAt(word, 0); err != nil {
		return err
	}
	n := binary.NativeEndian.Uint64(word)
	if n > mostMoved {
		return errors.New("too many")
	}
	b := make([]byte, 8*n)
	if _, err := m.file.ReadAt(b, 8); err != nil && n > 0 {
		return err
	}
	m.cookies = make(map[uint64]bool, n)
	for ; len(b) > 0; b = b[8:] {
		m.cookies[binary.NativeEndian.Uint64(b)] = true
	}
	return nil
}
