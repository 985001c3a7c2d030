package handoff_test

import (
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
)

// receiver is an instance that is given its connections. Its methods need no lock of their own: the dispatcher has one.
type receiver struct {
	t     *testing.T
	f     *front
	id    int
	given chan gift
	asked chan int
	tried chan struct{} // Give had no room

	mu     sync.Mutex
	number uint64
	full   bool
}

// gift is a connection that was given.
type gift struct {
	number uint64
	conn   net.Conn
}

func (r *receiver) Give(_, fd int) (number uint64, ok bool) {
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

func (r *receiver) Ask(token int) { r.asked <- token }

func (r *receiver) fill(full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.full = full
}

// take takes a connection and answers its client.
func (r *receiver) take(g gift) {
	r.t.Helper()
	r.f.Answered(r.id, r, g.number, true)
	if _, err := g.conn.Write([]byte{byte(r.id)}); err != nil {
		r.t.Error(err)
	}
	g.conn.Close()
}

// receivers attaches n of them, which take connections.
func receivers(t *testing.T, f *front, s balance.Strategy, n int) []*receiver {
	t.Helper()
	var all []*receiver
	var ring []uint16
	for id := 1; id <= n; id++ {
		r := &receiver{t: t, f: f, id: id, given: make(chan gift, 100), asked: make(chan int, 10), tried: make(chan struct{}, 1000)}
		all, ring = append(all, r), append(ring, uint16(id))
		f.AttachReceiver(id, r, true)
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
		f.Answered(1, r, g.number+7, true) // that of an earlier balancer's
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
		f.Reported(1, r, 0, 0, 0)
		if st := f.Stat(1); st.Open != 0 {
			t.Errorf("%s: after its end: %+v", s, st)
		}
	}
}

// What one does not take goes to another: it refuses, it has no room, it ends.
func TestReceiverThatDoesNotTakeLosesNothing(t *testing.T) {
	for what, lose := range map[string]func(*front, *receiver, gift){
		"refused": func(f *front, r *receiver, g gift) { f.Answered(r.id, r, g.number, false) },
		"ended":   func(f *front, r *receiver, g gift) { f.Detach(r.id) },
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

// More than a few that it has not answered would tell of an event loop that is behind; the others get the next ones.
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

// One that had an earlier balancer gets nothing before it has said what it has; one that closes its servers gets nothing
// more, and what it has been given it still answers.
func TestReceiverOfAnEarlierBalancer(t *testing.T) {
	f := openFor(t, "tcp", "127.0.0.1:0", true)
	r := &receiver{t: t, f: f, id: 1, given: make(chan gift, 10), asked: make(chan int, 10)}
	f.SetRing(balance.LeastConnections, []uint16{1})
	f.AttachReceiver(1, r, false)
	f.Serving(1, r, true)
	c := f.connect(t)
	f.Reported(1, r, 0, 9, 0) // what it sends to the one before
	if st := f.Stat(1); st.Ready || len(r.given) > 0 {
		t.Errorf("before it has answered: %+v, was given %d", st, len(r.given))
	}
	f.Reported(1, r, <-r.asked, 5, 2)
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
	other := &receiver{t: t, f: f, id: 1, given: make(chan gift, 10), asked: make(chan int, 10)}
	f.AttachReceiver(1, other, true)
	f.Serving(1, r, true) // the one before
	f.Reported(1, r, 0, 50, 0)
	if st := f.Stat(1); st.Ready || st.Open != 0 {
		t.Errorf("another process: %+v", st)
	}
}
