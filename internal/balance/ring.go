package balance

// MaxRing is the longest ring. It bounds the work of a rewrite and the memory in the kernel (16 KiB
// for each half), and gives 1023 backends four steps of weight each.
const MaxRing = 4096

// Member is one backend's share of a ring.
type Member struct {
	ID     int
	Weight int // any positive number; only the ratios count
}

// Ring returns the order in which members take connections: each ID as often as its weight says, as
// evenly spread as nginx's smooth weighted round robin (ngx_http_upstream_get_peer). Going round
// and round, any len(ring) consecutive picks hold each ID exactly its number of times.
//
// Weights are divided by their greatest common divisor; where their sum is still above MaxRing they
// are scaled down, none below 1, and then the ratios are rounded. Members without a positive weight
// are left out; no member gives an empty ring. At most MaxRing members are allowed, and IDs must
// fit in 16 bits.
func Ring(members []Member) []uint16 {
	kept := positive(members)
	reduce(kept)
	total := 0
	for _, m := range kept {
		total += m.Weight
	}
	ring := make([]uint16, 0, total)
	current := make([]int, len(kept))
	for range total {
		best := 0
		for i, m := range kept {
			current[i] += m.Weight
			if current[i] > current[best] {
				best = i
			}
		}
		current[best] -= total
		ring = append(ring, uint16(kept[best].ID))
	}
	return ring
}

// reduce makes the weights as small as their ratios allow, and their sum at most MaxRing.
func reduce(members []Member) {
	divide := 0
	for _, m := range members {
		divide = gcd(divide, m.Weight)
	}
	total := 0
	for i := range members {
		members[i].Weight /= divide
		total += members[i].Weight
	}
	if total <= MaxRing {
		return
	}
	// Each member has at least one entry; the others are divided by weight, rounded down so that
	// the sum holds.
	spare := MaxRing - len(members)
	for i := range members {
		members[i].Weight = 1 + members[i].Weight*spare/total
	}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
