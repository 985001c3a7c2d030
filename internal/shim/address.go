package shim

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/steer"
)

// Inherited is what PID 1 passes to a shim.
type Inherited struct {
	Parking  []int             // the public listeners of app.socket
	Stored   []Stored          // what an earlier shim put into the FD store
	Channels *net.UnixListener // of app-channel.socket; nil where instances are no Node.js programs
	Diag     []int             // NETLINK_SOCK_DIAG sockets of the host's network namespace, two or none: see package sockdiag
}

// Stored is one descriptor of the FD store under the name it was stored by.
type Stored struct {
	Name string
	FD   int
}

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
	unix    string // the path of a unix socket; Listener is zero then
	inode   uint32 // of a unix socket
	steer.Listener
}

func (a *address) String() string {
	if a.unix != "" {
		return a.unix
	}
	return a.Address.String()
}

// storeName names a map of this address in the FD store; a name there may not hold a colon (sd_notify(3)). It carries
// the address, so that a map is never adopted for another one after a change of ListenStream=.
func (a *address) storeName(what string) string {
	return what + "@" + strings.ReplaceAll(a.String(), ":", "+")
}

const (
	storedSlots = "slots"
	storedState = "state"
	storedMarks = "marks"
	storedLink  = "link"
)

// attach makes a group of each public listener, adopted where an earlier shim stored its maps, and gives the instances
// their stored listeners back.
func (s *Shim) attach(inherited Inherited) error {
	stored := make(map[string][]int)
	for _, st := range inherited.Stored {
		stored[st.Name] = append(stored[st.Name], st.FD)
	}
	for _, fd := range inherited.Parking {
		a, err := s.openAddress(fd, stored)
		if err != nil {
			return err
		}
		s.addresses = append(s.addresses, a)
	}
	if len(s.addresses) == 0 {
		return errors.New("no public listener was passed")
	}
	var handed map[int]int
	if s.handsOff() {
		if err := s.startHanding(); err != nil {
			return err
		}
		handed = takeHanded(stored)
	}
	s.takeMoved(stored)
	channels, state := s.takeNodes(stored)
	for name, fds := range stored {
		unit, ok := s.options.App.ParseUnit(name)
		if !ok || unit.Role != app.RoleInstanceSocket || unit.Instance == 0 {
			s.log.Warn("unknown descriptors in the FD store, ignoring", "name", name)
			closeAll(fds)
			continue
		}
		s.readopt(unit.Instance, fds)
	}
	s.channels = s.adoptNodes(channels, state)
	s.adoptHanded(handed)
	return nil
}

func (s *Shim) openAddress(parking int, stored map[string][]int) (*address, error) {
	if s.handsOff() {
		return s.openHanded(parking)
	}
	description, err := steer.Describe(parking)
	if err != nil {
		return nil, fmt.Errorf("take public listener: %w", err)
	}
	a := &address{parking: parking, Listener: description}
	if !s.kernel.Distribution {
		if a.group, err = steer.NewClassic(parking); err != nil {
			return nil, fmt.Errorf("steer %s: %w", a, err)
		}
		return a, nil
	}
	if a.ebpf, err = s.adopt(a, stored); err != nil {
		return nil, err
	}
	if a.ebpf == nil {
		a.ebpf, err = steer.New(parking, func(m steer.Maps) error {
			return errors.Join(
				s.notify.StoreFilesUnpolled(a.storeName(storedSlots), m.Slots),
				s.notify.StoreFilesUnpolled(a.storeName(storedState), m.State))
		})
		if err == nil && s.strategy == app.SourceHash {
			err = a.ebpf.Pick(steerStrategies[s.strategy])
		}
	}
	if err != nil {
		return nil, fmt.Errorf("steer %s: %w", a, err)
	}
	a.group = a.ebpf
	return a, nil
}

// adopt takes over the maps of an earlier shim, nil if there are none that this one can use.
func (s *Shim) adopt(a *address, stored map[string][]int) (*steer.Group, error) {
	slots, state := stored[a.storeName(storedSlots)], stored[a.storeName(storedState)]
	delete(stored, a.storeName(storedSlots))
	delete(stored, a.storeName(storedState))
	if len(slots) != 1 || len(state) != 1 {
		closeAll(append(slots, state...))
		return nil, nil
	}
	group, err := steer.Adopt(a.parking, steer.Maps{Slots: slots[0], State: state[0]}, steerStrategies[s.strategy])
	if err == nil {
		if err := errors.Join(group.Admit(), s.adoptCount(a, group, stored)); err != nil {
			return nil, errors.Join(err, group.Close())
		}
		s.log.Info("steering goes on with the ring of the shim before", "address", a.String())
		return group, nil
	}
	if !errors.Is(err, steer.ErrLayout) {
		return nil, fmt.Errorf("adopt steering of %s: %w", a, err)
	}
	s.log.Info("steering starts anew", "address", a.String(), "reason", err.Error())
	for _, what := range []string{storedSlots, storedState, storedMarks, storedLink} {
		if err := s.notify.RemoveStored(a.storeName(what)); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// readopt gives an instance the listeners that an earlier shim stored for it.
func (s *Shim) readopt(number int, fds []int) {
	found, err := s.match(fds)
	if err == nil {
		err = s.pool.Add(number, weight(s.options.Weights, number))
	}
	if err != nil {
		s.log.Warn("adopt listeners, ignoring", "instance", number, "error", err)
		closeAll(fds)
		return
	}
	in := s.newInstance(number)
	in.adopted = true
	s.instances[number] = in
	if err := s.take(in, found); err != nil {
		s.log.Error("adopt listeners, ignoring", "instance", number, "error", err)
	}
	s.units.Watch(s.options.App.Instance(number))
	s.units.Watch(s.options.App.InstanceSocket(number))
}

// match finds the address of each listener: descriptors come out of the FD store in no order. Every address must have
// one, or the instance would be left out of that address in silence.
func (s *Shim) match(fds []int) (map[*address]*listener, error) {
	if s.handsOff() {
		return s.matchHanded(fds)
	}
	found := make(map[*address]*listener)
	for _, fd := range fds {
		l, err := steer.Describe(fd)
		if err != nil {
			return nil, err
		}
		a := s.addressOf(l)
		if a == nil {
			return nil, fmt.Errorf("listener of %v: the app has no such address", l.Address)
		}
		if found[a] != nil {
			return nil, fmt.Errorf("listener of %v: passed twice", l.Address)
		}
		found[a] = &listener{fd: fd, cookie: l.Cookie}
	}
	for _, a := range s.addresses {
		if found[a] == nil {
			return nil, fmt.Errorf("listener of %s: missing", a)
		}
	}
	return found, nil
}

func (s *Shim) addressOf(l steer.Listener) *address {
	for _, a := range s.addresses {
		if a.Address == l.Address && a.DualStack == l.DualStack {
			return a
		}
	}
	return nil
}

// rescue moves what waits at a listener to the ring; it returns how many waited. A failure leaves them where they are.
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

func (a *address) queue(fd int) (int, error) {
	queued, _, err := steer.Queue(fd)
	if errors.Is(err, steer.ErrNotListening) {
		return 0, nil // nobody waits; the next look puts the listener back
	}
	return queued, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
