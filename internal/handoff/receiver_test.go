package handoff_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/handoff/receiver"
)

// program is an instance that is given its connections.
type program struct {
	t       *testing.T
	f       *front
	id      int
	channel int // an eventfd: what comes there is words
	given   chan gift
	asked   chan int
	tried   chan struct{} // Give had no room

	mu     sync.Mutex
	number uint64
	full   bool
	words  []receiver.Said
	each   bool // Hear takes one of them at a time
}

func newReceiver(t *testing.T, f *front, id int) *program {
	t.Helper()
	channel, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(channel) })
	return &program{t: t, f: f, id: id, channel: channel, given: make(chan gift, 100), asked: make(chan int, 10), tried: make(chan struct{}, 1000)}
}

func (r *program) attach(fresh bool) {
	r.t.Helper()
	if err := r.f.AttachReceiver(r.id, r, fresh); err != nil {
		r.t.Fatal(err)
	}
}

func (r *program) Descriptor(f func(fd int) error) error { return f(r.channel) }

func (r *program) Hear(said []receiver.Said) ([]receiver.Said, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.words)
	if r.each {
		n = min(n, 1)
	}
	said, r.words = append(said, r.words[:n]...), r.words[n:]
	return said, len(r.words) > 0
}

// say has the dispatcher take in what the receiver says.
func (r *program) say(words ...receiver.Said) {
	r.mu.Lock()
	r.words = append(r.words, words...)
	r.mu.Unlock()
	r.f.Hear(r.id, r)
}

// gift is a connection that was given.
type gift struct {
	number uint64
	conn   net.Conn
}

func (r *program) Give(_, fd int) (number uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full {
		r.tried <- struct{}{}
		return 0, false
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) // what SCM_RIGHTS would do
	if err != nil {
		r.t.Error(err)
		return 0, false
	}
	file := os.NewFile(uintptr(dup), "given")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		r.t.Error(err)
		return 0, false
	}
	r.number++
	r.given <- gift{r.number, conn}
	return r.number, true
}

func (r *program) Ask(token int) { r.asked <- token }

func (r *program) fill(full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full = full
}

// take takes a connection and answers its client.
func (r *program) take(g gift) {
	r.t.Helper()
	r.say(receiver.Said{Number: g.number, Taken: true})
	if _, err := g.conn.Write([]byte{byte(r.id)}); err != nil {
		r.t.Error(err)
	}
	g.conn.Close()
}

// receivers attaches n of them, which take connections.
func receivers(t *testing.T, f *front, s balance.Strategy, n int) []*program {
	t.Helper()
	var all []*program
	var ring []uint16
	for id := 1; id <= n; id++ {
		r := newReceiver(t, f, id)
		all, ring = append(all, r), append(ring, uint16(id))
		r.attach(true)
		f.Serving(id, r, true)
	}
	f.SetRing(s, ring)
	return all
}

// servedBy waits for the answer to a client.
func servedBy(t *testing.T, c *client) int {
	t.Helper()
	var answer [1]byte
	if _, err := c.Read(answer[:]); err != nil {
		t.Fatalf("connection was lost: %v", err)
	}
	return int(answer[0])
}

func TestReceiverIsGivenConnections(t *testing.T) {
	for _, s := range []balance.Strategy{balance.RoundRobin, balance.SourceHash} {
		f := openFor(t, "tcp", "127.0.0.1:0", true)
		r := receivers(t, f, s, 1)[0]
		c := f.connect(t)
		g := <-r.given
		if st := f.Stat(1); st.Pending != 1 || st.Open != 0 || !st.Ready {
			t.Errorf("%s: before the answer: %+v", s, st)
		}
		r.say(receiver.Said{Number: g.number + 7, Taken: true}) // that of an earlier balancer's
		if st := f.Stat(1); st.Pending != 1 {
			t.Errorf("%s: after an answer to another balancer: %+v", s, st)
		}
		r.take(g)
		if id := servedBy(t, c); id != 1 {
			t.Errorf("%s: instance %d answers", s, id)
		}
		if st := f.Stat(1); st.Pending != 0 || st.Open != 1 {
			t.Errorf("%s: after the answer: %+v", s, st)
		}
		r.say(receiver.Said{Report: true})
		if st := f.Stat(1); st.Open != 0 {
			t.Errorf("%s: after its end: %+v", s, st)
		}
	}
}

// What one does not take goes to another: it refuses, it has no room, it ends.
func TestReceiverThatDoesNotTakeLosesNothing(t *testing.T) {
	for what, lose := range map[string]func(*front, *program, gift){
		"refused": func(f *front, r *program, g gift) { r.say(receiver.Said{Number: g.number}) },
		"ended":   func(f *front, r *program, g gift) { f.Detach(r.id) },
	} {
		t.Run(what, func(t *testing.T) {
			f := openFor(t, "tcp", "127.0.0.1:0", true)
			both := receivers(t, f, balance.SourceHash, 2)
			c := f.connect(t)
			var g gift
			first, second := both[0], both[1]
			select {
			case g = <-first.given:
			case g = <-second.given:
				first, second = second, first
			}
			g.conn.Close()
			lose(f, first, g)
			second.take(<-second.given)
			if id := servedBy(t, c); id != second.id {
				t.Errorf("instance %d answers, want %d", id, second.id)
			}
		})
	}
}

// One that has no room is tried again, without a word from it.
func TestFullReceiverIsTriedAgain(t *testing.T) {
	f := openFor(t, "tcp", "127.0.0.1:0", true)
	r := receivers(t, f, balance.RoundRobin, 1)[0]
	r.fill(true)
	c := f.connect(t)
	<-r.tried
	r.fill(false)
	r.take(<-r.given)
	servedBy(t, c)
}

// More than a few that it has not answered would tell of an event loop that is behind; the others
// get the next ones.
func TestReceiverHasFewUnanswered(t *testing.T) {
	f := openFor(t, "tcp", "127.0.0.1:0", true)
	both := receivers(t, f, balance.RoundRobin, 2)
	var clients []*client
	for range 20 {
		clients = append(clients, f.connect(t))
	}
	f.await(t, func() bool { return f.Stat(1).Pending == 4 && f.Stat(2).Pending == 4 })
	done := make(chan struct{})
	go func() { // the first answers nothing
		defer close(done)
		for range 16 {
			both[1].take(<-both[1].given)
		}
	}()
	<-done
	if st := f.Stat(1); st.Pending != 4 || len(both[0].given) != 4 {
		t.Errorf("the one that hangs: %+v, was given %d", st, len(both[0].given))
	}
	for range 4 {
		both[0].take(<-both[0].given)
	}
	for _, c := range clients {
		servedBy(t, c)
	}
}

// One that had an earlier balancer gets nothing before it has said what it has; one that closes its
// servers gets nothing more, and what it has been given it still answers.
func TestReceiverOfAnEarlierBalancer(t *testing.T) {
	f := openFor(t, "tcp", "127.0.0.1:0", true)
	r := newReceiver(t, f, 1)
	f.SetRing(balance.LeastConnections, []uint16{1})
	r.attach(false)
	f.Serving(1, r, true)
	c := f.connect(t)
	r.say(receiver.Said{Report: true, Open: 9}) // what it sends to the one before
	if st := f.Stat(1); st.Ready || len(r.given) > 0 {
		t.Errorf("before it has answered: %+v, was given %d", st, len(r.given))
	}
	r.say(receiver.Said{Report: true, Token: <-r.asked, Open: 5, Busy: 2})
	g := <-r.given
	if st := f.Stat(1); !st.Ready || st.Open != 5 || st.Busy != 2 || st.Pending != 1 {
		t.Errorf("after it has answered: %+v", st)
	}
	f.Serving(1, r, false)
	if st := f.Stat(1); st.Ready || st.Pending != 1 {
		t.Errorf("after its servers were closed: %+v", st)
	}
	r.take(g)
	servedBy(t, c)
	if st := f.Stat(1); st.Open != 6 || st.Pending != 0 {
		t.Errorf("after it has taken the last one: %+v", st)
	}
	other := newReceiver(t, f, 1)
	other.attach(true)
	f.Serving(1, r, true) // the one before
	r.say(receiver.Said{Report: true, Open: 50})
	if st := f.Stat(1); st.Ready || st.Open != 0 {
		t.Errorf("another process: %+v", st)
	}
}

// What comes on the channel is heard, to the last word, also if a receiver does not read all of it
// at once.
func TestReceiverIsHeard(t *testing.T) {
	f := openFor(t, "tcp", "127.0.0.1:0", true)
	r := receivers(t, f, balance.RoundRobin, 1)[0]
	c := f.connect(t)
	g := <-r.given
	r.mu.Lock()
	r.each = true
	r.words = []receiver.Said{{Report: true, Open: 3}, {Report: true, Open: 4}, {Number: g.number, Taken: true}}
	r.mu.Unlock()
	if _, err := unix.Write(r.channel, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	f.await(t, func() bool { st := f.Stat(1); return st.Open == 5 && st.Pending == 0 })
	g.conn.Close()
	c.Close()
}

// The loop pauses polling for a while after it has given a connection, not for ever: a receiver
// that answers nothing keeps nobody awake, and whoever speaks next is heard.
func TestLoopListensAgain(t *testing.T) {
	f := openFor(t, "tcp", "127.0.0.1:0", true)
	r := receivers(t, f, balance.RoundRobin, 1)[0]
	f.connect(t)
	g := <-r.given
	defer g.conn.Close()
	f.Stat(1) // the loop has dealt with it
	const channels = -2
	f.await(t, func() bool { events, ok := watched(t, channels); return ok && events&unix.EPOLLIN != 0 })
}

// A channel that others hold too, as the FD store does, is not watched when its instance has left.
func TestReceiverThatHasLeftIsNotWatched(t *testing.T) {
	const id = 4242
	f := openFor(t, "tcp", "127.0.0.1:0", true)
	newReceiver(t, f, id).attach(true)
	if _, ok := watched(t, id); !ok {
		t.Fatal("it is not watched when it has come")
	}
	f.Detach(id)
	if _, ok := watched(t, id); ok {
		t.Error("it is still watched when it has left")
	}
}

// watched says whether an epoll set of this process has an entry of that number, and for which
// events (fdinfo in proc(5)).
func watched(t *testing.T, number int32) (events uint32, ok bool) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // closed since
		}
		for line := range strings.Lines(string(text)) {
			var fd int
			var data uint64
			if n, _ := fmt.Sscanf(line, "tfd: %d events: %x data: %x", &fd, &events, &data); n == 3 && int32(data) == number {
				return events, true
			}
		}
	}
	return 0, false
}
