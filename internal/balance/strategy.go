package balance

import "slices"

// Strategy names how the instance for the next connection is picked, in HAProxy's words. The zero
// value is RoundRobin.
type Strategy string

// The strategies. All but SourceHash go by weight in turn where nothing else decides.
const (
	RoundRobin       Strategy = "round-robin"       // smooth, by weight
	LeastConnections Strategy = "least-connections" // the fewest for its weight
	RandomTwo        Strategy = "random-two"        // the less loaded of two that are drawn by weight
	SourceHash       Strategy = "source-hash"       // the client's address decides, by weighted rendezvous hashing
	First            Strategy = "first"             // the lowest number that is up takes all, so that the others go idle
)

// Strategies lists them all.
func Strategies() []Strategy {
	return []Strategy{RoundRobin, LeastConnections, RandomTwo, SourceHash, First}
}

func (s Strategy) known() bool { return s == "" || slices.Contains(Strategies(), s) }

// CountsConnections reports whether the strategy needs to know how many connections each instance
// has open.
func (s Strategy) CountsConnections() bool { return s == LeastConnections || s == RandomTwo }
