package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

const buckets = MaxRing

func equals(ids ...int) []Member {
	var members []Member
	for _, id := range ids {
		members = append(members, Member{ID: id, Weight: 1})
	}
	return members
}

func shares(table []uint16) map[int]int {
	n := make(map[int]int)
	for _, id := range table {
		n[int(id)]++
	}
	return n
}

// Each member has its share of the buckets, by weight, within five standard deviations of chance.
func TestTableShares(t *testing.T) {
	for _, members := range [][]Member{
		equals(1), equals(1, 2), equals(1, 2, 3, 4), equals(7, 300, 1023),
		{{1, 3}, {2, 1}}, {{1, 256}, {2, 1}, {3, 100}}, {{1, 10}, {2, 10}, {3, 1}}, {{1, 1}, {2, 0}, {3, -1}},
	} {
		total := 0
		for _, m := range members {
			total += max(m.Weight, 0)
		}
		got := shares(Table(members, buckets))
		for _, m := range members {
			p := float64(max(m.Weight, 0)) / float64(total)
			want, deviation := p*buckets, math.Sqrt(p*(1-p)*buckets)
			if off := math.Abs(float64(got[m.ID]) - want); off > 5*deviation {
				t.Errorf("%v: member %d has %d buckets, want %.0f within %.0f", members, m.ID, got[m.ID], want, 5*deviation)
			}
		}
	}
	if got := Table(nil, buckets); len(got) != 0 {
		t.Errorf("table of nobody has %d buckets", len(got))
	}
}

// Only buckets of a member that comes, goes or changes its weight move.
func TestTableMovesLittle(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		var members []Member
		for id := range 2 + random.IntN(10) {
			members = append(members, Member{ID: id + 1, Weight: 1 + random.IntN(MaxWeight)})
		}
		before := Table(members, buckets)
		changed := random.IntN(len(members))
		without := slices.Delete(slices.Clone(members), changed, changed+1)
		heavier := slices.Clone(members)
		heavier[changed].Weight *= 2
		shuffled := slices.Clone(members)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		id := uint16(members[changed].ID)
		for i, after := range Table(without, buckets) {
			if before[i] != after && before[i] != id {
				t.Fatalf("%d leaves %v: bucket %d moves from %d to %d", id, members, i, before[i], after)
			}
		}
		for i, after := range Table(heavier, buckets) {
			if before[i] != after && after != id {
				t.Fatalf("%d of %v gets heavier: bucket %d moves from %d to %d", id, members, i, before[i], after)
			}
		}
		if !slices.Equal(before, Table(shuffled, buckets)) {
			t.Fatalf("%v: the order of members counts", members)
		}
	}
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []int{4, 64, MaxID} {
		var members []Member
		for id := range n {
			members = append(members, Member{ID: id + 1, Weight: 1})
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				Table(members, buckets)
			}
		})
	}
}
