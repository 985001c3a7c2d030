package path

import (
	"context"
	"log/slog"
	"slices"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/sock"
)

// Stored is one descriptor of the FD store under its name.
type Stored struct {
	Name string
	FD   int
}

// Store is PID 1's store of descriptors for the shim (FileDescriptorStoreMax= of
// systemd.service(5)). A process that takes over finds there what the one before has put, however
// that one ended: by a crash, a restart or an upgrade. Without PID 1 it keeps nothing.
type Store struct {
	app    app.Name
	notify *activation.Notifier
	left   map[string][]int
	log    *slog.Logger
}

// NewStore owns the descriptors of left, which an earlier process has put. The caller keeps notify
// open.
func NewStore(name app.Name, notify *activation.Notifier, left []Stored, log *slog.Logger) *Store {
	s := &Store{app: name, notify: notify, left: make(map[string][]int), log: log}
	for _, l := range left {
		s.left[l.Name] = append(s.left[l.Name], l.FD)
	}
	return s
}

// Names are those that an earlier process has put and nobody has taken, in order.
func (s *Store) Names() []string {
	var names []string
	for name := range s.left {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Take gives the descriptors of a name to the caller, who owns them; PID 1 keeps its own.
func (s *Store) Take(name string) []int {
	fds := s.left[name]
	delete(s.left, name)
	return fds
}

// TakeListeners takes those of the instances' socket units.
func (s *Store) TakeListeners() map[int][]int {
	listeners := make(map[int][]int)
	for _, name := range s.Names() {
		unit, ok := s.app.ParseUnit(name)
		if ok && unit.Role == app.RoleInstanceSocket && unit.Instance != 0 {
			listeners[unit.Instance] = s.Take(name)
		}
	}
	return listeners
}

// DropRest closes what nobody has taken.
func (s *Store) DropRest() {
	for _, name := range s.Names() {
		s.log.Warn("unknown descriptors in the FD store, ignoring", "name", name)
		sock.CloseAll(s.Take(name))
	}
}

// Enabled says whether there is a PID 1 to keep anything.
func (s *Store) Enabled() bool { return s.notify.Enabled() }

// Put has PID 1 keep copies under a name until Remove. A name may not hold a colon (sd_notify(3)).
func (s *Store) Put(name string, fds ...int) error { return s.notify.StoreFilesUnpolled(name, fds...) }

// PutPolled is Put for descriptors that PID 1 removes when their other end hangs up.
func (s *Store) PutPolled(name string, fds ...int) error { return s.notify.StoreFiles(name, fds...) }

// Remove removes all of a name.
func (s *Store) Remove(name string) error { return s.notify.RemoveStored(name) }

// PutListeners is Put for the descriptors of an instance's socket unit.
func (s *Store) PutListeners(instance int, fds ...int) error {
	return s.Put(s.app.InstanceSocket(instance), fds...)
}

// RemoveListeners undoes PutListeners.
func (s *Store) RemoveListeners(instance int) error {
	return s.Remove(s.app.InstanceSocket(instance))
}

// Barrier returns when PID 1 has done all that it was told before.
func (s *Store) Barrier(ctx context.Context) error { return s.notify.Barrier(ctx) }
