// Package path says what a data path is: how the connections of an app's public listeners get to
// its instances. Packages steered and handed are data paths; package pathtest is the suite that
// both pass.
//
// A path knows an instance by its number. What the instance is to PID 1, whether it is on the ring,
// drains or is ejected, is for the shim to know. So a path never asks PID 1, and the shim never
// asks which path it has.
//
// A path costs the shim nothing per connection of its own: Look is called once a tick, Count while
// the app is in use or an instance drains, and all other methods when the state of an instance
// changes.
//
// It is not for bytes: no path sees what a connection carries.
package path

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
)

// LookEvery is how often the shim looks while connections come. A later look has seen nothing of
// what happened in between, so a path counts no more than this of the time before it.
const LookEvery = 200 * time.Millisecond

// Parking stands for the connections that wait for any instance, where a method takes or returns a
// number of an instance.
const Parking = 0

// ErrCannotCount is the result of Count where PID 1 passed no socket to count connections with.
var ErrCannotCount = errors.New("connections cannot be counted: app-diag.socket passed nothing")

// Path delivers the connections of an app's public listeners to its instances. It owns these
// listeners and what Join gave it. When it is opened, it adopts what an earlier process has left in
// the Store: Description.Instances are those that have joined by that.
//
// All methods are called from the shim's one goroutine, except Run and Handle.
type Path interface {
	// Run delivers until ctx ends. What the next process needs to go on it leaves in the kernel and
	// in the Store. It returns earlier only if it cannot go on.
	Run(ctx context.Context) error

	// Changed ticks after the results of Serves or Count may have changed by themselves. It holds
	// one tick. Ticks that make the shim walk a table of the kernel are at least 50 ms apart.
	Changed() <-chan struct{}

	// Join takes over the descriptors of an instance's socket unit, also when it fails, and puts
	// them into the Store. It is false if the instance has joined with the same sockets before:
	// then nothing changes.
	Join(instance int, fds []int) (joined bool, err error)

	// Leave lets go of an instance's descriptors, here and in the Store. What waits there moves to
	// the ring.
	Leave(instance int)

	// SetRing says who takes new connections, each number as often as its weight says. With an
	// empty ring they wait.
	SetRing(ring []uint16) error

	// Serves says whether an instance takes connections when it is on the ring. It is cheap.
	Serves(instance int) Answer

	// Drain says that an instance drains, or that it does not any more. While it does, Count tells
	// Quiet, Taken and Unanswered. A second call with draining begins again.
	Drain(instance int, draining bool)

	// Rescue moves what waits at an instance that will not take it to the ring, and returns how
	// many connections that were. Parking is what waits for any instance. The caller makes sure
	// that PID 1 does not poll the listener meanwhile.
	Rescue(instance int) (moved int)

	// Look is the tick. It returns what can be seen of every instance, and of Parking, at a glance:
	// one load of shared memory each while no connection comes, one system call more while some do.
	// It also puts back what instances did to listeners that they share, and tells of it.
	Look(now time.Time) (map[int]Look, []Harm)

	// Count returns what is known of the connections of every instance. Parking are those that any
	// instance may have. It may walk a table of the kernel. With an error the map has what is known
	// without counting.
	Count(now time.Time) (map[int]Traffic, error)

	// Renew puts the descriptors of an instance whose program has ended back to how they were when
	// it joined.
	Renew(instance int) []Harm

	// StateChanged tells the path that an instance has changed its state, which ends what a probe
	// has left at its listeners.
	StateChanged(instance int)

	// Refuse closes the public listeners to newcomers; what waits is still served. It returns the
	// listeners that take root's rights to close. They stay the path's.
	Refuse() (byRoot []int)

	// Configure takes over what can change while the path runs. An *Impossible says what needs a
	// restart, and changes nothing.
	Configure(Settings) error

	// Handle answers the methods of the control socket that only this path has. It owns r.FDs. It
	// runs on the goroutine of the control client, and does what concerns the path's state by loop.
	Handle(ctx context.Context, loop Loop, r *control.Request) (any, error)

	// Describe may make a few system calls for each address.
	Describe() Description
}

// Loop is the shim's goroutine as Handle sees it.
type Loop interface {
	// Do runs f there and returns its error, or one that tells the client that the shim ends or the
	// client has left.
	Do(ctx context.Context, f func() error) error
	// Probed notes that PID 1 starts an instance, as its readiness is tried. It is for functions
	// that Do runs.
	Probed(instance int, at time.Time)
	// Harmed tells of what the path has put back. It is for functions that Do runs.
	Harmed([]Harm)
}

// Answer is what a path knows of a question.
type Answer int

const (
	Unknown Answer = iota // an instance that was adopted has not said yet what it has
	No
	Yes
)

// Look is what a path sees of one instance at a glance.
type Look struct {
	Given    uint64        // connections so far
	Waiting  int           // not taken yet
	Behind   bool          // the instance does not take at once what it is given
	Stalled  time.Duration // for how long something has waited and the instance has taken nothing
	Progress bool          // it has taken all that it was given, by itself: what a Rescue takes away is no progress
}

// Traffic is what is known of an instance's connections.
type Traffic struct {
	Given   uint64 // connections so far
	Waiting int    // not taken yet

	Counted  bool // Open to Quiet are known
	Own      bool // they are this instance's; else they may be those of the whole app
	Open     int  // with those that wait in the queue of the instance's listener
	Accepted int  // of Open

	// Of an instance that drains.
	Busy       int           // connections in the middle of something, also of those that it may have
	Quiet      bool          // there are none, for certain
	Taken      bool          // nothing waits for the instance to take it
	Unanswered time.Duration // for how long the oldest request without an answer has waited
}

// Harm is something that an instance did to a listener.
type Harm struct {
	Instance int // Parking is what instances share: it is not known which of them did it
	Address  string
	What     string // and the path has put it back, unless Err is set
	Err      error  // why it could not be put back
	Backlog  bool   // the backlog was made smaller, as by a program that calls listen() itself
}

// Settings are what a path can be told while it runs.
type Settings struct {
	Strategy       balance.Strategy
	MaxConnections int // of an instance, where connections are handed off; zero is any number
}

// Impossible is what Configure refuses.
type Impossible struct{ Reason string }

func (i *Impossible) Error() string { return i.Reason }

// Description is what a path says of itself.
type Description struct {
	Path      app.Path
	Reason    string           // what the path runs on, or why it is this one
	Strategy  balance.Strategy // in force; another one may have been asked for
	Addresses []control.AddressStatus
	Instances []int // those that have joined
}

// OpenListeners opens the address of each public listener. Without any an app could not be reached.
func OpenListeners[A any](listeners []int, open func(fd int) (A, error)) ([]A, error) {
	if len(listeners) == 0 {
		return nil, errors.New("no public listener was passed")
	}
	addresses := make([]A, len(listeners))
	for i, fd := range listeners {
		var err error
		if addresses[i], err = open(fd); err != nil {
			return nil, err
		}
	}
	return addresses, nil
}

// NotJoined is the error for an instance that has not joined.
func NotJoined(instance int) error {
	return &control.Error{Name: control.ErrNoSuchInstance, Reason: fmt.Sprintf("instance %d has not joined", instance)}
}

// ErrEnded is the error for a client whose request came when the shim was about to end, or that was
// about to leave.
var ErrEnded = &control.Error{Name: control.ErrEnding, Reason: "the shim ends, or the client has left"}

// NoMethod is the error for a request that nobody answers.
func NoMethod(r *control.Request) error {
	return &control.Error{Name: control.ErrMethodNotFound, Reason: "no such method: " + r.Method}
}
