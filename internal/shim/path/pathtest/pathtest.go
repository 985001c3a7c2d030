// Package pathtest tests implementations of path.Path against its contract, as package
// testing/fstest does for file systems. What it cannot see is what only one path has: how it puts
// listeners back, and what it counts of others.
package pathtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// World is an app as PID 1 would have made it, with the public listener of one address.
type World struct {
	// Open opens the path as a new process would, with the public listener.
	Open func(*path.Store) (Path, error)
	// Unit returns duplicates of what the socket unit of an instance has; the same sockets each
	// time.
	Unit func(instance int) []int
	// Program starts the program of an instance that has joined, and returns what it accepts from.
	Program func(p path.Path, instance int) net.Listener
	// Refuse closes a listener to newcomers by root's rights, as package lifecycle does.
	Refuse  func(listener int) error
	Address string
}

// Path is a path that a test can end without the process.
type Path interface {
	path.Path
	Close() error
}

// limit bounds what a test waits for. It is generous, as the machine may be busy.
const limit = 30 * time.Second

// Run tests the path that open makes a World of.
func Run(t *testing.T, open func(t *testing.T) World) {
	for name, test := range map[string]func(*bench){
		"join": join, "ring": ring, "stall and rescue": rescue, "drain": drain, "refuse": refuse, "adopt": adopt,
		"configure": configure,
	} {
		t.Run(name, func(t *testing.T) {
			b := &bench{t: t, World: open(t), pid1: newPID1(t), programs: make(map[int]*program)}
			b.start()
			test(b)
		})
	}
}

// bench is a World with its path, which runs.
type bench struct {
	World
	Path
	t        *testing.T
	pid1     *pid1
	programs map[int]*program
	kill     func() // ends the path as a kill of its process would: nobody leaves
}

// start opens and runs the path, as a process that PID 1 has started.
func (b *bench) start() {
	b.t.Helper()
	p, err := b.World.Open(b.pid1.store(b.t))
	if err != nil {
		b.t.Fatal(err)
	}
	b.Path = p
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }() // ends with ctx, awaited by end
	b.kill = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
		if err := p.Close(); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(b.kill)
}

// program accepts while its gate is open.
type program struct {
	gate  chan struct{} // holds one token for each connection that it may accept
	conns chan net.Conn
}

// many is more connections than any test makes.
const many = 1000

// up joins an instance and starts its program, which accepts that many connections and then hangs.
func (b *bench) up(instance, accepts int) {
	b.t.Helper()
	if joined, err := b.Join(instance, b.Unit(instance)); err != nil || !joined {
		b.t.Fatalf("join instance %d: %v, %v", instance, joined, err)
	}
	ln := b.Program(b.Path, instance)
	p := &program{gate: make(chan struct{}, many), conns: make(chan net.Conn, many)}
	for range accepts {
		p.gate <- struct{}{}
	}
	b.programs[instance] = p
	done := make(chan struct{})
	go func() { // ends with ln, awaited below
		defer close(done)
		for range p.gate {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			p.conns <- conn
		}
	}()
	b.t.Cleanup(func() {
		close(p.gate)
		ln.Close()
		<-done
		for len(p.conns) > 0 {
			(<-p.conns).Close()
		}
	})
	b.await(fmt.Sprintf("instance %d serves", instance), func() bool { return b.Serves(instance) == path.Yes })
}

// take waits for the next connection of an instance's program, which stays open until the test
// ends.
func (b *bench) take(instance int) net.Conn {
	b.t.Helper()
	select {
	case conn := <-b.programs[instance].conns:
		b.t.Cleanup(func() { conn.Close() })
		return conn
	case <-time.After(limit):
		b.t.Fatalf("instance %d gets no connection", instance)
		return nil
	}
}

// dial makes n connections that stay open until the test ends.
func (b *bench) dial(n int) (last net.Conn) {
	b.t.Helper()
	for range n {
		conn, err := net.DialTimeout("tcp", b.Address, limit)
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { conn.Close() })
		last = conn
	}
	return last
}

// ring gives new connections to instances.
func (b *bench) ring(instances ...uint16) {
	b.t.Helper()
	if err := b.SetRing(instances); err != nil {
		b.t.Fatal(err)
	}
}

// await looks until done.
func (b *bench) await(what string, done func() bool) {
	b.t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for late := time.Now().Add(limit); !done(); <-look.C {
		if time.Now().After(late) {
			b.t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// traffic counts the connections of an instance.
func (b *bench) traffic(instance int) path.Traffic {
	b.t.Helper()
	all, err := b.Count(time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	return all[instance]
}

// waiting is what waits for any instance.
func (b *bench) waiting() int { return b.Describe().Addresses[0].Waiting }

// Join takes what it is given, once, and refuses what is no socket unit's of the app.
func join(b *bench) {
	b.up(1, many)
	if joined, err := b.Join(1, b.Unit(1)); joined || err != nil {
		b.t.Errorf("the same sockets again: %v, %v", joined, err)
	}
	stranger, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	if joined, err := b.Join(2, []int{stranger}); joined || err == nil {
		b.t.Errorf("a stranger: %v, %v", joined, err)
	}
	if _, err := unix.FcntlInt(uintptr(stranger), unix.F_GETFD, 0); err != unix.EBADF {
		b.t.Errorf("its descriptor is still open: %v", err)
	}
	if got := b.Describe().Instances; !slices.Equal(got, []int{1}) {
		b.t.Errorf("instances %v, want 1", got)
	}
	if names := b.pid1.names(b.t); !slices.Contains(names, "app@1.socket") || slices.Contains(names, "app@2.socket") {
		b.t.Errorf("the store has %q", names)
	}
	b.Leave(1)
	if got, names := b.Describe().Instances, b.pid1.names(b.t); len(got) != 0 || slices.Contains(names, "app@1.socket") {
		b.t.Errorf("when it has left: instances %v, the store has %q", got, names)
	}
}

// The ring says who gets new connections. While nobody is on it they wait.
func ring(b *bench) {
	b.up(1, many)
	b.up(2, many)
	b.ring(1, 2)
	b.dial(10)
	for range 5 {
		b.take(1)
		b.take(2)
	}
	b.ring()
	b.dial(2)
	b.await("two connections wait", func() bool { return b.waiting() == 2 })
	b.ring(2)
	b.Rescue(path.Parking)
	b.take(2)
	b.take(2)
	if n := len(b.programs[1].conns); n != 0 {
		b.t.Errorf("%d connections for an instance that is off the ring", n)
	}
	looks, harms := b.Look(time.Now())
	if one, two := looks[1].Given, looks[2].Given; one+two+looks[path.Parking].Given < 12 || one != 5 || len(harms) > 0 {
		b.t.Errorf("look: %+v, %+v", looks, harms)
	}
}

// An instance that hangs is seen to, while another keeps up. What waits for it goes to the others,
// which is no progress of its own.
func rescue(b *bench) {
	b.up(1, 1)
	b.up(2, many)
	b.ring(1, 2)
	b.dial(2)
	b.take(1)
	b.take(2)
	looks, _ := b.Look(time.Now())
	b.dial(2)
	b.take(2)
	b.await("instance 1 stalls", func() bool {
		looks, _ = b.Look(time.Now())
		if looks[1].Progress {
			b.t.Error("an instance that hangs makes progress")
		}
		return looks[1].Stalled >= 4*path.LookEvery
	})
	if looks[1].Waiting != 1 || !looks[1].Behind || looks[2].Behind || looks[2].Stalled != 0 {
		b.t.Errorf("look: %+v", looks)
	}
	b.ring(2)
	b.Rescue(1)
	b.take(2)
	if looks, _ = b.Look(time.Now()); looks[1].Progress {
		b.t.Errorf("look after the rescue: %+v", looks[1])
	}
	b.ring(1)
	b.dial(1)
	b.programs[1].gate <- struct{}{}
	b.programs[1].gate <- struct{}{}
	b.take(1)
	b.await("instance 1 makes progress", func() bool { looks, _ = b.Look(time.Now()); return looks[1].Progress })
}

// A drain is quiet when no connection is in the middle of something, and open connections do not
// hold it up.
func drain(b *bench) {
	b.up(1, many)
	b.ring(1)
	client := b.dial(1)
	server := b.take(1)
	b.ring()
	b.Drain(1, true)
	quiet := func() bool {
		b.Look(time.Now())
		t := b.traffic(1)
		return t.Quiet && t.Taken
	}
	b.await("the drain is quiet", quiet)
	b.Drain(1, true)
	if _, err := client.Write([]byte("question")); err != nil {
		b.t.Fatal(err)
	}
	b.await("a question is under way", func() bool { return !quiet() && b.traffic(1).Counted })
	if _, err := server.Read(make([]byte, len("question"))); err != nil {
		b.t.Fatal(err)
	}
	if _, err := server.Write([]byte("answer")); err != nil {
		b.t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, len("answer"))); err != nil {
		b.t.Fatal(err)
	}
	b.await("the answer makes it quiet", quiet)
	b.Drain(1, false)
}

// What a path refuses changes nothing; what it takes is in force when the ring is set.
func configure(b *bench) {
	b.up(1, many)
	b.up(2, many)
	b.ring(1, 2)
	for _, s := range []balance.Strategy{balance.LeastConnections, balance.First} {
		before := b.Describe().Strategy
		err := b.Configure(path.Settings{Strategy: s})
		var impossible *path.Impossible
		switch got := b.Describe().Strategy; {
		case errors.As(err, &impossible) && got != before:
			b.t.Errorf("%s is refused (%v), and the strategy is %s", s, err, got)
		case err == nil && got != s:
			b.t.Errorf("%s is taken, and the strategy is %s", s, got)
		case err != nil && impossible == nil:
			b.t.Errorf("%s: %v", s, err)
		}
	}
	b.ring(2)
	b.dial(2)
	b.take(2)
	b.take(2)
}

// Refuse turns newcomers away, and serves what waits.
func refuse(b *bench) {
	b.up(1, many)
	b.ring()
	b.dial(1)
	b.await("a connection waits", func() bool { return b.waiting() == 1 })
	for _, fd := range b.Path.Refuse() {
		if err := b.World.Refuse(fd); err != nil {
			b.t.Fatal(err)
		}
	}
	if conn, err := net.DialTimeout("tcp", b.Address, 100*time.Millisecond); err == nil {
		conn.Close()
		b.t.Error("connected after the path refused")
	}
	b.ring(1)
	b.Rescue(path.Parking)
	b.take(1)
}

// The next process goes on where one was killed: with the instances, and what they have.
func adopt(b *bench) {
	b.up(1, many)
	b.up(2, many)
	b.ring(1, 2)
	b.dial(2)
	b.take(1)
	b.take(2)
	b.kill()
	b.start()
	if got := b.Describe().Instances; !slices.Equal(got, []int{1, 2}) {
		b.t.Fatalf("instances %v, want 1 and 2", got)
	}
	for i := range 2 {
		if b.Serves(i+1) == path.No {
			b.t.Errorf("instance %d is said to serve nobody before it has told", i+1)
		}
		b.await("an adopted instance serves", func() bool { return b.Serves(i+1) == path.Yes })
	}
	if joined, err := b.Join(1, b.Unit(1)); joined || err != nil {
		b.t.Errorf("the same sockets again: %v, %v", joined, err)
	}
	b.ring(1, 2)
	b.dial(4)
	for range 2 {
		b.take(1)
		b.take(2)
	}
	b.await("connections from before are known", func() bool { t := b.traffic(1); return t.Counted && t.Open >= 3 })
}
