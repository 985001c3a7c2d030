package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
)

func TestSpreadIsExact(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, s := range []balance.Strategy{balance.RoundRobin, balance.LeastConnections} {
			t.Run(network+" "+string(s), func(t *testing.T) {
				f := open(t, network, anyAddress(t, network))
				f.start(t, s, 4)
				shares := make(map[int]int)
				for range 40 {
					c := f.connect(t)
					id, peer := c.ask(t)
					shares[id]++
					if network == "tcp" && peer != c.LocalAddr().String() {
						t.Errorf("instance sees %s, not %s", peer, c.LocalAddr())
					}
				}
				for id := 1; id <= 4; id++ {
					if shares[id] != 10 {
						t.Errorf("instance %d had %d connections, want 10", id, shares[id])
					}
					f.await(t, func() bool { return f.Stat(id).Open == 10 })
				}
			})
		}
	}
}

// Exact least connections: who has lost some gets the next ones.
func TestLeastConnectionsFollowsCloses(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	f.start(t, balance.LeastConnections, 3)
	held := make(map[int][]*client)
	for range 30 {
		c := f.connect(t)
		id, _ := c.ask(t)
		held[id] = append(held[id], c)
	}
	for _, c := range held[2] {
		c.Close()
	}
	f.await(t, func() bool { return f.Stat(2).Open == 0 })
	for range 10 {
		if id, _ := f.connect(t).ask(t); id != 2 {
			t.Errorf("instance %d got a connection, not the idle one", id)
		}
	}
}

func TestSourceHashSticks(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	f.start(t, balance.SourceHash, 4)
	ids := make(map[int]bool)
	for range 20 {
		c := f.connect(t)
		id, peer := c.ask(t)
		ids[id] = true
		if peer != c.LocalAddr().String() {
			t.Errorf("instance sees %s, not %s", peer, c.LocalAddr())
		}
	}
	if len(ids) != 1 {
		t.Errorf("one client was served by instances %v", ids)
	}
}

// What nobody can take waits, and is served when somebody can.
func TestWaitsForAnInstance(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, s := range []balance.Strategy{balance.RoundRobin, balance.SourceHash} {
			t.Run(network+" "+string(s), func(t *testing.T) {
				f := open(t, network, anyAddress(t, network))
				var clients []*client
				for range 100 {
					clients = append(clients, f.connect(t))
				}
				if n, err := f.Waiting(0); n != 100 && network == "tcp" || n == 0 || err != nil {
					t.Errorf("%d connections wait (%v), want 100", n, err)
				}
				f.start(t, s, 2)
				for _, c := range clients {
					c.ask(t)
				}
			})
		}
	}
}

// anyAddress is a free address of that network.
func anyAddress(t *testing.T, network string) string {
	if network == "unix" {
		return filepath.Join(t.TempDir(), "public")
	}
	return "127.0.0.1:0"
}

// An instance that does not accept holds up no other: its orders go to them once it is off the
// ring. What was given to it is theirs when it ends, and also when it ends its listener.
func TestStuckInstance(t *testing.T) {
	for _, s := range []balance.Strategy{balance.RoundRobin, balance.SourceHash} {
		for _, end := range []string{"detached", "closed"} {
			t.Run(string(s)+" "+end, func(t *testing.T) {
				f := open(t, "tcp", "127.0.0.1:0")
				stuck := newInstance(t, f, 9)
				first := make(chan net.Conn, 1)
				go func() { // ends when the first connection is there; later ones are not accepted
					if conn, err := stuck.Accept(); err == nil {
						first <- conn
					}
				}()
				if err := f.Attach(9, stuck.dial(t)); err != nil {
					t.Fatal(err)
				}
				f.SetRing(s, []uint16{9})
				f.connect(t)
				conn := <-first
				defer conn.Close()
				var clients []*client
				for range 10 {
					clients = append(clients, f.connect(t))
				}
				f.await(t, func() bool { return f.Stat(9).Pending == 10 && f.Stat(9).Waits > 0 })
				f.start(t, s, 2) // which takes 9 off the ring
				if s == balance.SourceHash {
					if end == "detached" {
						f.Detach(9)
					} else if err := stuck.Close(); err != nil {
						t.Fatal(err)
					}
				}
				for _, c := range clients {
					c.ask(t)
				}
			})
		}
	}
}

// A balancer that is killed takes nothing with it: the next one goes on with the same channels, and
// knows what is open.
func TestNextBalancer(t *testing.T) {
	for _, s := range []balance.Strategy{balance.RoundRobin, balance.SourceHash} {
		t.Run(string(s), func(t *testing.T) {
			f := open(t, "tcp", "127.0.0.1:0")
			in := newInstance(t, f, 1)
			in.serve(t)
			channel := in.dial(t)
			store, err := unix.Dup(channel) // PID 1's
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Attach(1, channel); err != nil {
				t.Fatal(err)
			}
			for round := range 20 {
				f.SetRing(s, []uint16{1})
				var clients []*client
				for range 20 {
					clients = append(clients, f.connect(t))
				}
				f.run(t) // at any point of that
				channel, err := unix.Dup(store)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.Attach(1, channel); err != nil {
					t.Fatal(err)
				}
				f.SetRing(s, []uint16{1})
				for _, c := range clients {
					c.ask(t)
				}
				f.await(t, func() bool { return f.Stat(1).Open == 20*(round+1) })
			}
			unix.Close(store)
		})
	}
}

// An instance gets no more connections than it may have; more wait until one ends.
func TestLimit(t *testing.T) {
	for _, s := range []balance.Strategy{balance.RoundRobin, balance.SourceHash} {
		t.Run(string(s), func(t *testing.T) {
			f := open(t, "tcp", "127.0.0.1:0")
			f.Limit(3)
			f.start(t, s, 2)
			var clients []*client
			for range 6 {
				c := f.connect(t)
				c.ask(t)
				clients = append(clients, c)
			}
			f.await(t, func() bool { return f.Stat(1).Open == 3 && f.Stat(2).Open == 3 })
			more := f.connect(t)
			f.await(t, func() bool { n, err := f.Waiting(0); return n == 1 && err == nil })
			clients[0].Close()
			more.ask(t)
			f.connect(t)
			f.await(t, func() bool { n, err := f.Waiting(0); return n == 1 && err == nil })
			f.Limit(0)
			f.await(t, func() bool { n, err := f.Waiting(0); return n == 0 && err == nil })
		})
	}
}

// Busy is what waits for an answer; what is idle is not.
func TestBusy(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	in := newInstance(t, f, 1)
	conns := make(chan net.Conn)
	go func() { // ends with the listener
		for {
			conn, err := in.Accept()
			if err != nil {
				return
			}
			conns <- conn
		}
	}()
	if err := f.Attach(1, in.dial(t)); err != nil {
		t.Fatal(err)
	}
	f.SetRing(balance.RoundRobin, []uint16{1})
	f.connect(t)
	defer (<-conns).Close()
	asking := f.connect(t)
	asked := <-conns
	defer asked.Close()
	io.WriteString(asking, "?\n")
	if _, err := asked.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	busy := func(want int) func() bool {
		return func() bool {
			before := f.Stat(1).Asked
			f.Ask(1)
			f.await(t, func() bool { return f.Stat(1).Asked > before })
			return f.Stat(1).Busy == want
		}
	}
	f.await(t, busy(1)) // a second after it came, the silent one is idle
	if _, err := asked.Write([]byte("!\n")); err != nil {
		t.Fatal(err)
	}
	f.await(t, busy(0))
	if st := f.Stat(1); st.Open != 2 {
		t.Errorf("open are %d, want 2", st.Open)
	}
}

// net/http lives on these connections as on its own, also across keep-alive, time-outs and its own
// shutdown.
func TestHTTPServer(t *testing.T) {
	f := open(t, "tcp", "0.0.0.0:0")
	in := newInstance(t, f, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		fmt.Fprintf(w, "%s %v", r.RemoteAddr, local)
	}), IdleTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(in) }()
	if err := f.Attach(1, in.dial(t)); err != nil {
		t.Fatal(err)
	}
	f.SetRing(balance.RoundRobin, []uint16{1})
	url := fmt.Sprintf("http://127.0.0.1:%d/", f.addr.(*net.TCPAddr).Port)
	transport := &http.Transport{}
	for range 20 {
		resp, err := (&http.Client{Transport: transport, Timeout: limit}).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.HasPrefix(string(body), "127.0.0.1:") || !strings.HasSuffix(string(body), " "+url[7:len(url)-1]) {
			t.Fatalf("answer %q, %v", body, err)
		}
	}
	if n := f.Stat(1).Given; n != 1 {
		t.Errorf("%d connections for 20 requests that keep alive", n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	f.await(t, func() bool { st := f.Stat(1); return !st.Ready && st.Open == 0 })
}

func benchmark(b *testing.B, s balance.Strategy) {
	f := open(b, "tcp", "127.0.0.1:0")
	in := newInstance(b, f, 1)
	go func() {
		for {
			conn, err := in.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	if err := f.Attach(1, in.dial(b)); err != nil {
		b.Fatal(err)
	}
	f.SetRing(s, []uint16{1})
	b.SetParallelism(8)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			conn, err := net.Dial("tcp", f.addr.String())
			if err != nil {
				b.Error(err)
				return
			}
			conn.Read(make([]byte, 1))
			conn.Close()
		}
	})
	runtime.KeepAlive(f)
}

// Both measure client, balancer and instance in one process: the difference between them is the
// balancer's.
func BenchmarkTake(b *testing.B) { benchmark(b, balance.RoundRobin) }
func BenchmarkGive(b *testing.B) { benchmark(b, balance.SourceHash) }
