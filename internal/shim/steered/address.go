package steered

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/steer"
)

// group is how the connections of one address are steered; see steer.Group for the contract.
type group interface {
	Put(slot, listener int) error
	Remove(slot int) error
	SetRing(ring []uint16) error
	Rescue(slot, listener int) (moved int, err error)
	Probe(slot int, port uint16) error
	EndProbe() error
	Guard() (wrong string, err error)
	Refuse() error
	Admit() error
	Steered(slot int) uint64
	Totals() steer.Totals
	Close() error
}

// address is one public address: the group of listeners bound to it.
type address struct {
	group   group
	ebpf    *steer.Group // the same, where eBPF is at work
	parking int
	cgroup  uint64 // of app.socket; zero until connections are counted
	steer.Listener
}

func (a *address) String() string {
	return a.Address.String()
}

// storeName names a map of this address in the FD store; a name there may not hold a colon
// (sd_notify(3)). It carries the address, so that a map is never adopted for another one after a
// change of ListenStream=.
func (a *address) storeName(what string) string {
	return what + "@" + strings.ReplaceAll(a.String(), ":", "+")
}

const (
	storedSlots = "slots"
	storedState = "state"
	storedMarks = "marks"
	storedLink  = "link"
)

// openAddress makes a group of a public listener, adopted where an earlier process stored its maps.
func (p *Path) openAddress(parking int) (*address, error) {
	description, err := steer.Describe(parking)
	if err != nil {
		return nil, fmt.Errorf("take public listener: %w", err)
	}
	a := &address{parking: parking, Listener: description}
	if !p.kernel.Distribution {
		if a.group, err = steer.NewClassic(parking); err != nil {
			return nil, fmt.Errorf("steer %s: %w", a, err)
		}
		return a, nil
	}
	if a.ebpf, err = p.adopt(a); err != nil {
		return nil, err
	}
	if a.ebpf == nil {
		a.ebpf, err = steer.New(parking, func(m steer.Maps) error {
			return errors.Join(
				p.store.Put(a.storeName(storedSlots), m.Slots),
				p.store.Put(a.storeName(storedState), m.State))
		})
		if err == nil && p.strategy == balance.SourceHash {
			err = a.ebpf.Pick(p.strategy)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("steer %s: %w", a, err)
	}
	a.group = a.ebpf
	return a, nil
}

// adopt takes over the maps of an earlier shim, nil if there are none that this one can use.
func (p *Path) adopt(a *address) (*steer.Group, error) {
	slots, state := p.store.Take(a.storeName(storedSlots)), p.store.Take(a.storeName(storedState))
	if len(slots) != 1 || len(state) != 1 {
		sock.CloseAll(append(slots, state...))
		return nil, nil
	}
	group, err := steer.Adopt(a.parking, steer.Maps{Slots: slots[0], State: state[0]}, p.strategy)
	if err == nil {
		if err := errors.Join(group.Admit(), p.adoptCount(a, group)); err != nil {
			return nil, errors.Join(err, group.Close())
		}
		p.log.Info("steering continues with the ring of the previous shim", "address", a.String())
		return group, nil
	}
	if !errors.Is(err, steer.ErrLayout) {
		return nil, fmt.Errorf("adopt steering of %s: %w", a, err)
	}
	p.log.Info("steering starts again", "address", a.String(), "reason", err.Error())
	for _, what := range []string{storedSlots, storedState, storedMarks, storedLink} {
		if err := p.store.Remove(a.storeName(what)); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

func (p *Path) addressOf(l steer.Listener) *address {
	for _, a := range p.addresses {
		if a.Address == l.Address && a.DualStack == l.DualStack {
			return a
		}
	}
	return nil
}

// rescue moves what waits at a listener to the ring; it returns how many waited. A failure leaves
// them where they are.
func (a *address) rescue(slot, fd int, log *slog.Logger) int {
	moved, err := a.group.Rescue(slot, fd)
	if errors.Is(err, errors.ErrUnsupported) {
		return a.relay(fd, log)
	}
	if err != nil && !errors.Is(err, steer.ErrNowhere) {
		log.Error("move waiting connections, ignoring", "address", a.String(), "slot", slot, "error", err)
	}
	return moved
}
