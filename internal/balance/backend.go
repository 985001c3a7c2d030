package balance

import (
	"fmt"
	"time"
)

// MinWeight and MaxWeight bound a backend's weight; 256 is HAProxy's limit too.
const (
	MinWeight = 1
	MaxWeight = 256
)

// MaxID is the highest backend number: internal/steer keeps 1024 slots per address and uses slot 0
// for parking.
const MaxID = 1023

// State is where a backend is in its life, as the shim sees it.
type State uint8

const (
	Down     State = iota // not there, or not able to serve; the zero value
	Starting              // runs, but has not said that it is ready
	Up                    // takes new connections
	Draining              // takes no new connections; those it has may finish
)

// String returns the state's name in status output and logs.
func (s State) String() string {
	switch s {
	case Down:
		return "down"
	case Starting:
		return "starting"
	case Up:
		return "up"
	case Draining:
		return "draining"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Backend is one instance as the balancer sees it. Values returned by a Pool are copies.
type Backend struct {
	ID     int // instance number, 1..MaxID
	Weight int // share of new connections relative to the others, MinWeight..MaxWeight
	State  State
	Stuck  bool // ejected: up, but it does not accept

	wasUp bool      // it has been in the ring before, so coming back is slow
	back  time.Time // when it came back; zero means full weight
}

// InRing reports whether b takes new connections.
func (b Backend) InRing() bool { return b.State == Up && !b.Stuck }

// rampParts is the number of steps in which slow start restores a weight: the first at once, the
// last at the end of its time. Each step rewrites the ring once, and a tenth is the smallest share
// that is still visible with a few backends.
const rampParts = 10

// part returns how many rampParts-ths of its weight b has at now (1..rampParts), and when that next
// changes; the zero time means never.
func (b Backend) part(now time.Time, slowStart time.Duration) (int, time.Time) {
	elapsed := max(now.Sub(b.back), 0)
	if b.back.IsZero() || elapsed >= slowStart {
		return rampParts, time.Time{}
	}
	done := int(elapsed * (rampParts - 1) / slowStart)
	// The first nanosecond at which one more is done.
	next := (slowStart*time.Duration(done+1) + rampParts - 2) / (rampParts - 1)
	return done + 1, b.back.Add(next)
}
