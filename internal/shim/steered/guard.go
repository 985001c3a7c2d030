package steered

import (
	"cmp"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/steer"
)

// guard is the part of a look that compares what instances share with how it was, and puts it back.
func (p *Path) guard() []path.Harm {
	var harms []path.Harm
	for _, a := range p.addresses {
		if wrong, err := a.group.Guard(); err != nil || wrong != "" {
			harms = append(harms, path.Harm{Address: a.String(), What: wrong, Err: err})
		}
	}
	for _, m := range p.members {
		harms = append(harms, p.mend(m)...)
	}
	return harms
}

// mend makes the listeners of an instance listen, if they do not, and puts them into their groups
// again. It returns what was wrong. Some programs shut their listener down when they end, which
// harms nobody.
func (p *Path) mend(m *member) (harms []path.Harm) {
	for a, l := range m.listeners {
		wrong, err := l.was.Resume(l.fd)
		if wrong != steer.NotListening && err == nil {
			var absent string
			absent, err = a.absent(m.number, l)
			wrong = cmp.Or(absent, wrong)
		}
		if wrong != "" && wrong != steer.SmallBacklog && err == nil {
			err = p.putAgain(a, m.number, l)
		}
		if err != nil || wrong != "" {
			harms = append(harms, path.Harm{
				Instance: m.number, Address: a.String(), What: wrong, Err: err, Backlog: wrong == steer.SmallBacklog,
			})
		}
	}
	return harms
}

// putAgain puts a listener into its group again. The order of the members is another one then, by
// which classic BPF steers: so the ring is set again.
func (p *Path) putAgain(a *address, number int, l *listener) error {
	if err := a.group.Put(number, l.fd); err != nil {
		return err
	}
	if p.ring == nil {
		return nil // the adopted one
	}
	return a.group.SetRing(p.ring)
}

// mended says whether anything was wrong that has been put back.
func mended(harms []path.Harm) bool {
	for _, h := range harms {
		if h.Err == nil {
			return true
		}
	}
	return false
}

// absent says what is wrong with a listener that listens, but is in its slot no more. Without eBPF
// nobody tells.
func (a *address) absent(slot int, l *listener) (wrong string, err error) {
	if a.ebpf == nil {
		return "", nil
	}
	cookie, err := a.ebpf.Member(slot)
	if err == nil && cookie != l.cookie {
		wrong = "it did not listen for a moment"
	}
	return wrong, err
}

// Renew is of path.Path: the next program shall not find what this one has set.
func (p *Path) Renew(number int) []path.Harm {
	m := p.members[number]
	if m == nil {
		return nil
	}
	harms := p.mend(m)
	for a, l := range m.listeners {
		differed, err := l.was.Restore(l.fd)
		if err != nil {
			p.log.Warn("put options of listener back, ignoring", "instance", number, "address", a.String(), "error", err)
		}
		if differed != "" {
			p.log.Debug("options of listener put back", "instance", number, "address", a.String(), "options", differed)
		}
	}
	return harms
}

// acceptAtOnce makes the listeners of an instance hand over connections that have sent nothing yet,
// until acceptLater: a probe sends nothing, and would wait in the kernel where nobody sees it
// (TCP_DEFER_ACCEPT, tcp(7)). It says whether one of them had the option set.
func (m *member) acceptAtOnce() (deferred bool, err error) {
	for _, l := range m.listeners {
		seconds, err := unix.GetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
		if err != nil {
			return false, fmt.Errorf("look at listener: getsockopt TCP_DEFER_ACCEPT: %w", err)
		}
		if seconds == 0 {
			continue
		}
		if err := unix.SetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 0); err != nil {
			return false, fmt.Errorf("set up listener for a probe: setsockopt TCP_DEFER_ACCEPT: %w", err)
		}
		l.deferred, deferred = seconds, true
	}
	return deferred, nil
}

// acceptLater ends acceptAtOnce.
func (p *Path) acceptLater(m *member) {
	for _, l := range m.listeners {
		if l.deferred == 0 {
			continue
		}
		if err := unix.SetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, l.deferred); err != nil {
			p.log.Warn("set TCP_DEFER_ACCEPT again, ignoring", "instance", m.number, "error", err)
		}
		l.deferred = 0
	}
}

// StateChanged is of path.Path.
func (p *Path) StateChanged(number int) {
	if m := p.members[number]; m != nil {
		p.acceptLater(m)
	}
}
