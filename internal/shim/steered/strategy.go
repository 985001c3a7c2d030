package steered

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/cgroup"
	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/steer"
)

// reason says what steering runs on here.
func (p *Path) reason() string {
	if p.strategy != p.options.Strategy {
		return fmt.Sprintf("%s; strategy %s is not possible here", p.kernel, p.options.Strategy)
	}
	return p.kernel.String()
}

// counting says whether connections are counted at each address.
func (p *Path) counting() bool {
	for _, a := range p.addresses {
		if a.ebpf == nil || !a.ebpf.Counting() {
			return false
		}
	}
	return true
}

// firstStrategy is the one to begin with: one that counts begins when connections are counted.
// Where no eBPF program can be loaded, source-hash cannot be done.
func (p *Path) firstStrategy() balance.Strategy {
	switch {
	case p.options.Strategy.CountsConnections():
		return balance.RoundRobin
	case p.options.Strategy == balance.SourceHash && !p.kernel.Distribution:
		p.log.Error("client addresses cannot be hashed, strategy is round-robin", "reason", p.kernel.String())
		return balance.RoundRobin
	}
	return p.options.Strategy
}

// startCounting begins to count connections in the kernel for the strategies that need it, when the
// first instance joins: the counting program belongs to the cgroup above the instances' socket
// units, which is there then. Where it cannot, the strategy stays round-robin, and says why.
func (p *Path) startCounting(number int) {
	if !p.options.Strategy.CountsConnections() || p.strategy == p.options.Strategy {
		return
	}
	if err := p.count1(number); err != nil {
		p.log.Error("connections cannot be counted, strategy is round-robin", "error", err)
		return
	}
	p.strategy = p.options.Strategy
	p.log.Info("strategy is " + string(p.strategy))
}

func (p *Path) count1(number int) error {
	group, err := p.options.Cgroup(number)
	if err != nil {
		return err
	}
	if group == "" {
		return fmt.Errorf("find cgroup of %s: it has none", p.options.App.InstanceSocket(number))
	}
	dir, err := os.Open(cgroup.Dir(filepath.Dir(group)))
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, a := range p.addresses {
		if a.ebpf == nil {
			return errors.New(p.reason())
		}
		err := a.ebpf.Count(int(dir.Fd()), func(c steer.Counter) error {
			return errors.Join(
				p.store.Put(a.storeName(storedMarks), c.Marks),
				p.store.Put(a.storeName(storedLink), c.Link))
		})
		if err != nil {
			return err
		}
		if err := a.ebpf.Pick(p.options.Strategy); err != nil {
			return err
		}
	}
	return nil
}

// adoptCount takes over the counting of an earlier shim, if it counted and this one is to.
func (p *Path) adoptCount(a *address, g *steer.Group) error {
	marks, link := p.store.Take(a.storeName(storedMarks)), p.store.Take(a.storeName(storedLink))
	if len(marks) != 1 || len(link) != 1 || !p.options.Strategy.CountsConnections() {
		sock.CloseAll(append(marks, link...))
		return errors.Join(p.store.Remove(a.storeName(storedMarks)), p.store.Remove(a.storeName(storedLink)))
	}
	if err := g.AdoptCount(steer.Counter{Marks: marks[0], Link: link[0]}); err != nil {
		return err
	}
	p.strategy = p.options.Strategy
	return g.Pick(p.strategy)
}
