package balance

import (
	"fmt"
	"maps"
	"testing"
)

// fleet is the load of backends; what is not in it can take none.
type fleet map[int]int

func (f fleet) load(id int) (int, bool) { n, ok := f[id]; return n, ok }

// pick picks n times and counts each pick as a connection that stays.
func (f fleet) pick(p *Picker, n int, source []byte) map[int]int {
	picked := make(map[int]int)
	for range n {
		id, ok := p.Pick(f.load, source)
		if !ok {
			break
		}
		f[id]++
		picked[id]++
	}
	return picked
}

func TestPick(t *testing.T) {
	for _, c := range []struct {
		strategy Strategy
		ring     []uint16
		fleet    fleet
		n        int
		want     string
	}{
		{RoundRobin, []uint16{1, 2, 3}, fleet{1: 9, 2: 0, 3: 0}, 30, "map[1:10 2:10 3:10]"},
		{RoundRobin, []uint16{1, 2, 1}, fleet{1: 0, 2: 0}, 30, "map[1:20 2:10]"},
		{RoundRobin, []uint16{1, 2, 3}, fleet{1: 0, 3: 0}, 30, "map[1:15 3:15]"},
		{RoundRobin, []uint16{1}, fleet{}, 1, "map[]"},
		{RoundRobin, nil, fleet{1: 0}, 1, "map[]"},
		{First, []uint16{2}, fleet{1: 0, 2: 0}, 7, "map[2:7]"},
		{LeastConnections, []uint16{1, 2, 3}, fleet{1: 0, 2: 0, 3: 0}, 30, "map[1:10 2:10 3:10]"},
		{LeastConnections, []uint16{1, 2, 3}, fleet{1: 10, 2: 4, 3: 0}, 10, "map[2:3 3:7]"},
		{LeastConnections, []uint16{1, 2, 1}, fleet{1: 0, 2: 0}, 30, "map[1:20 2:10]"},
		{LeastConnections, []uint16{1, 2}, fleet{2: 100}, 3, "map[2:3]"},
		{LeastConnections, nil, fleet{}, 1, "map[]"},
		{RandomTwo, []uint16{1, 2}, fleet{2: 100}, 3, "map[2:3]"},
		{RandomTwo, nil, fleet{}, 1, "map[]"},
		{SourceHash, []uint16{1, 2}, fleet{2: 100}, 3, "map[2:3]"},
		{SourceHash, nil, fleet{}, 1, "map[]"},
	} {
		var p Picker
		p.SetRing(c.strategy, c.ring)
		if got := fmt.Sprint(c.fleet.pick(&p, c.n, []byte("source"))); got != c.want {
			t.Errorf("%s, ring %v: picked %s, want %s", c.strategy, c.ring, got, c.want)
		}
	}
}

// One who leaves or comes does not make round robin begin anew, which would favour the first.
func TestRoundRobinGoesOn(t *testing.T) {
	var p Picker
	f := fleet{1: 0, 2: 0, 3: 0}
	for range 10 {
		p.SetRing(RoundRobin, []uint16{1, 2, 3})
		f.pick(&p, 1, nil)
	}
	if fmt.Sprint(f) != "map[1:4 2:3 3:3]" {
		t.Errorf("picked %v", f)
	}
}

// Two random choices keep the difference small, where one would not.
func TestRandomTwoIsNearlyEven(t *testing.T) {
	var p Picker
	p.SetRing(RandomTwo, []uint16{1, 2, 3, 4})
	f := fleet{1: 0, 2: 0, 3: 0, 4: 0}
	for id, n := range f.pick(&p, 4000, nil) {
		if n < 980 || n > 1020 {
			t.Errorf("backend %d has %d of 4000 connections", id, n)
		}
	}
}

// sources are the addresses of as many clients.
func sources(n int) [][]byte {
	var all [][]byte
	for i := range n {
		all = append(all, []byte{10, 0, byte(i >> 8), byte(i)})
	}
	return all
}

func assign(p *Picker, f fleet) map[string]int {
	assigned := make(map[string]int)
	for _, s := range sources(8000) {
		id, _ := p.Pick(f.load, s)
		assigned[string(s)] = id
	}
	return assigned
}

// A source stays with its instance when others come and go; an instance that comes takes its share
// from all.
func TestSourceHashStaysPut(t *testing.T) {
	var p Picker
	f := fleet{1: 0, 2: 0, 3: 0, 4: 0}
	p.SetRing(SourceHash, []uint16{1, 2, 3, 4})
	four := assign(&p, f)
	shares := make(map[int]int)
	for _, id := range four {
		shares[id]++
	}
	for id := range f {
		if shares[id] < 1800 || shares[id] > 2200 {
			t.Errorf("shares of 8000 sources: %v", shares)
		}
	}
	p.SetRing(SourceHash, []uint16{4, 1, 3})
	for source, id := range assign(&p, f) {
		if was := four[source]; was != 2 && id != was {
			t.Fatalf("source %v moved from %d to %d as 2 left", []byte(source), was, id)
		}
	}
	p.SetRing(SourceHash, []uint16{1, 2, 3, 4})
	if !maps.Equal(assign(&p, f), four) {
		t.Error("sources are not back with instance 2")
	}
	delete(f, 3)
	for source, id := range assign(&p, f) {
		if was := four[source]; was != 3 && id != was {
			t.Fatalf("source %v moved from %d to %d as 3 was full", []byte(source), was, id)
		}
	}
}

func TestSourceHashHasWeights(t *testing.T) {
	var p Picker
	p.SetRing(SourceHash, []uint16{1, 2, 1, 1})
	shares := make(map[int]int)
	for _, id := range assign(&p, fleet{1: 0, 2: 0}) {
		shares[id]++
	}
	if shares[1] < 5800 || shares[1] > 6200 {
		t.Errorf("shares of 8000 sources: %v, want 6000 and 2000", shares)
	}
}

func BenchmarkPick(b *testing.B) {
	ring := make([]uint16, 16)
	f := fleet{}
	for i := range ring {
		ring[i] = uint16(i + 1)
		f[i+1] = i
	}
	for _, s := range []Strategy{RoundRobin, LeastConnections, RandomTwo, SourceHash} {
		b.Run(string(s), func(b *testing.B) {
			var p Picker
			p.SetRing(s, ring)
			source := []byte{192, 0, 2, 1}
			b.ReportAllocs()
			for b.Loop() {
				p.Pick(f.load, source)
			}
		})
	}
}
