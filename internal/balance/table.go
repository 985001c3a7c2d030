package balance

import (
	"cmp"
	"math"
	"slices"
)

// Table returns for each of size buckets the ID of the member that gets its clients, by weighted
// rendezvous hashing: each bucket goes to the member with the highest score there. A new member
// takes buckets from the others, in proportion to its weight. A member that leaves gives its
// buckets to the others. No other bucket moves, in whatever order members come and go (Thaler and
// Ravishankar 1998; weights as in Schindelhauer and Schomaker 2005). So a client that lost its
// instance to a restart returns to it afterwards, and two addresses of an app send a client to the
// same instance.
//
// The shares are random: with n equal members and size buckets the standard deviation of one share
// is sqrt(n/size) of it, 3 % for 4 members and 4096 buckets. The cost is a hash for each member and
// bucket, and a logarithm for each different weight: some tens of microseconds for a member and
// 4096 buckets. Members without a positive weight are left out; without members the table is empty.
func Table(members []Member, size int) []uint16 {
	kept := positive(members)
	if len(kept) == 0 {
		return nil
	}
	// Of members with the same weight the one with the greatest hash has the highest score.
	slices.SortFunc(kept, func(a, b Member) int { return cmp.Or(a.Weight-b.Weight, a.ID-b.ID) })
	table := make([]uint16, size)
	for bucket := range table {
		source := [2]byte{byte(bucket), byte(bucket >> 8)}
		best := math.Inf(-1)
		for i := 0; i < len(kept); {
			weight, greatest, id := kept[i].Weight, 0.0, 0
			for ; i < len(kept) && kept[i].Weight == weight; i++ {
				if u := unit(source[:], kept[i].ID); u > greatest {
					greatest, id = u, kept[i].ID
				}
			}
			if score := float64(weight) / -math.Log(greatest); score > best {
				best, table[bucket] = score, uint16(id)
			}
		}
	}
	return table
}

// positive returns the members with a positive weight, in a new slice.
func positive(members []Member) []Member {
	kept := make([]Member, 0, len(members))
	for _, m := range members {
		if m.Weight > 0 {
			kept = append(kept, m)
		}
	}
	return kept
}
