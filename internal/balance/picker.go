package balance

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Picker picks a backend for one connection at a time, from the ring of a Pool. The zero Picker has
// no backends. Not safe for concurrent use.
type Picker struct {
	strategy Strategy
	ring     []uint16
	weights  []int    // of ring's entries
	members  []Member // of ring, by number
	next     int      // where round robin goes on in ring
}

// SetRing sets the backends to pick from. Round robin continues at its place as far as possible: a
// backend that leaves or joins does not send it back to the first.
func (p *Picker) SetRing(s Strategy, ring []uint16) {
	p.strategy, p.ring, p.members = s, slices.Clone(ring), p.members[:0]
	if p.next >= len(ring) {
		p.next = 0
	}
	weights := make(map[int]int)
	for _, id := range ring {
		weights[int(id)]++
	}
	for id, weight := range weights {
		p.members = append(p.members, Member{ID: id, Weight: weight})
	}
	slices.SortFunc(p.members, func(a, b Member) int { return a.ID - b.ID })
	p.weights = p.weights[:0]
	for _, id := range ring {
		p.weights = append(p.weights, weights[int(id)])
	}
}

// Members returns the backends to pick from, by number. The caller does not change it.
func (p *Picker) Members() []Member { return p.members }

// Pick returns the backend for a connection, or false if none can take it. load returns the number
// of connections of a backend, or false if the backend can take none now. source is the client's
// address for SourceHash; without an address the strategy is LeastConnections.
func (p *Picker) Pick(load func(id int) (int, bool), source []byte) (id int, ok bool) {
	switch {
	case p.strategy == SourceHash && len(source) > 0:
		return p.rendezvous(load, source)
	case p.strategy == RandomTwo:
		return p.randomTwo(load)
	case p.strategy == LeastConnections, p.strategy == SourceHash:
		return p.least(load)
	}
	for range p.ring {
		id = int(p.ring[p.next])
		p.next = (p.next + 1) % len(p.ring)
		if _, ok = load(id); ok {
			return id, true
		}
	}
	return 0, false
}

// least walks the ring once from where round robin stands, so that equals take turns.
func (p *Picker) least(load func(id int) (int, bool)) (id int, ok bool) {
	best, bestLoad, bestWeight := -1, 0, 1
	for i := range p.ring {
		at := p.next + i
		if at >= len(p.ring) {
			at -= len(p.ring)
		}
		n, can := load(int(p.ring[at]))
		// n/weight < bestLoad/bestWeight without a division; one more than it has, so that weights
		// count for empty ones too.
		if can && (best < 0 || (n+1)*bestWeight < (bestLoad+1)*p.weights[at]) {
			best, bestLoad, bestWeight = at, n, p.weights[at]
		}
	}
	if best < 0 {
		return 0, false
	}
	p.next = (best + 1) % len(p.ring)
	return int(p.ring[best]), true
}

func (p *Picker) randomTwo(load func(id int) (int, bool)) (id int, ok bool) {
	if len(p.ring) == 0 {
		return 0, false
	}
	a, b := int(p.ring[rand.IntN(len(p.ring))]), int(p.ring[rand.IntN(len(p.ring))])
	aLoad, aCan := load(a)
	bLoad, bCan := load(b)
	switch {
	case aCan && (!bCan || aLoad <= bLoad):
		return a, true
	case bCan:
		return b, true
	}
	return p.least(load)
}

// hashSeed makes the hash the same in each process, so that a client stays with its instance when
// the balancer restarts.
const hashSeed = 0x756e697467656e

// rendezvous scores each member with the source's hash and takes the best: when one comes or goes,
// only its own share of the sources moves (Thaler and Ravishankar 1998; weights as in Schindelhauer
// and Schomaker 2005). A source whose instance can take none goes to its second best meanwhile.
func (p *Picker) rendezvous(load func(id int) (int, bool), source []byte) (id int, ok bool) {
	best := math.Inf(-1)
	for _, m := range p.members {
		score := float64(m.Weight) / -math.Log(unit(source, m.ID))
		if score <= best {
			continue
		}
		if _, can := load(m.ID); can {
			best, id, ok = score, m.ID, true
		}
	}
	return id, ok
}

// unit is a number between 0 and 1, neither included, from a source and an ID: FNV-1a with the
// finalizer of MurmurHash3, as FNV alone leaves similar inputs close together.
func unit(source []byte, id int) float64 {
	const prime = 0x100000001b3
	h := uint64(0xcbf29ce484222325) ^ hashSeed
	for _, b := range source {
		h = (h ^ uint64(b)) * prime
	}
	h = (h ^ uint64(id&0xff)) * prime
	h = (h ^ uint64(id>>8)) * prime
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return (float64(h>>11) + 0.5) / (1 << 53)
}
