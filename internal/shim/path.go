package shim

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/cgroup"
	"github.com/unitgen/unitgen/internal/steer"
)

// path is how connections reach the instances.
func (s *Shim) path() app.Path {
	if s.handsOff() {
		return app.PathHandoff
	}
	return app.PathSteer
}

// pathReason says what steering runs on here, or why connections are handed off.
func (s *Shim) pathReason() string {
	if s.handsOff() {
		return s.handedReason()
	}
	if s.strategy != s.options.Strategy {
		return fmt.Sprintf("%s; strategy %s is not possible here", s.kernel, s.options.Strategy)
	}
	return s.kernel.String()
}

// steerStrategies are those that the steering program picks by. The others are a matter of the ring: RoundRobin.
var steerStrategies = map[app.Strategy]steer.Strategy{
	app.LeastConnections: steer.LeastConnections,
	app.RandomTwo:        steer.RandomTwo,
	app.SourceHash:       steer.SourceHash,
}

// counting says whether connections are counted at each address.
func (s *Shim) counting() bool {
	for _, a := range s.addresses {
		if a.ebpf == nil || !a.ebpf.Counting() {
			return false
		}
	}
	return true
}

// firstStrategy is the one to begin with: one that counts begins when connections are counted. Where no eBPF program can
// be loaded, source-hash cannot be done.
func (s *Shim) firstStrategy() app.Strategy {
	switch {
	case s.options.Strategy.CountsConnections():
		return app.RoundRobin
	case s.options.Strategy == app.SourceHash && !s.kernel.Distribution:
		s.log.Error("client addresses cannot be hashed, strategy is round-robin", "reason", s.kernel.String())
		return app.RoundRobin
	}
	return s.options.Strategy
}

// startCounting begins to count connections in the kernel for the strategies that need it, when the first instance joins: the
// counting program belongs to the cgroup above the instances' socket units, which is there then. Where it cannot, the
// strategy stays round-robin, and says why.
func (s *Shim) startCounting(number int) {
	if s.handsOff() || !s.options.Strategy.CountsConnections() || s.strategy == s.options.Strategy {
		return
	}
	if err := s.count1(number); err != nil {
		s.log.Error("connections cannot be counted, strategy is round-robin", "error", err)
		return
	}
	s.strategy = s.options.Strategy
	s.log.Info("strategy is " + string(s.strategy))
}

func (s *Shim) count1(number int) error {
	unit, err := s.ask(s.options.App.InstanceSocket(number))
	if err != nil {
		return err
	}
	if unit.ControlGroup == "" {
		return fmt.Errorf("find cgroup of %s: it has none", unit.Name)
	}
	dir, err := os.Open(cgroup.Dir(filepath.Dir(unit.ControlGroup)))
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, a := range s.addresses {
		if a.ebpf == nil {
			return errors.New(s.pathReason())
		}
		err := a.ebpf.Count(int(dir.Fd()), func(c steer.Counter) error {
			return errors.Join(
				s.notify.StoreFilesUnpolled(a.storeName(storedMarks), c.Marks),
				s.notify.StoreFilesUnpolled(a.storeName(storedLink), c.Link))
		})
		if err != nil {
			return err
		}
		if err := a.ebpf.Pick(steerStrategies[s.options.Strategy]); err != nil {
			return err
		}
	}
	return nil
}

// adoptCount takes over the counting of an earlier shim, if it counted and this one is to.
func (s *Shim) adoptCount(a *address, g *steer.Group, stored map[string][]int) error {
	marks, link := stored[a.storeName(storedMarks)], stored[a.storeName(storedLink)]
	delete(stored, a.storeName(storedMarks))
	delete(stored, a.storeName(storedLink))
	if len(marks) != 1 || len(link) != 1 || !s.options.Strategy.CountsConnections() {
		closeAll(append(marks, link...))
		return errors.Join(s.notify.RemoveStored(a.storeName(storedMarks)), s.notify.RemoveStored(a.storeName(storedLink)))
	}
	if err := g.AdoptCount(steer.Counter{Marks: marks[0], Link: link[0]}); err != nil {
		return err
	}
	s.strategy = s.options.Strategy
	return g.Pick(steerStrategies[s.strategy])
}
