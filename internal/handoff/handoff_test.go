package handoff_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/handoff/wire"
	"github.com/unitgen/unitgen/internal/steer"
)

// limit ends waits that cannot end.
const limit = 30 * time.Second

// front is a public listener with a dispatcher behind it.
type front struct {
	*handoff.Dispatcher
	addr    net.Addr
	fd      int
	changed chan struct{}
	dir     string
	stop    func() // of the dispatcher
}

// open opens a public listener and a dispatcher that runs until the test ends.
func open(t testing.TB, network, address string) *front {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	f := &front{addr: ln.Addr(), changed: make(chan struct{}, 1), dir: t.TempDir()}
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { f.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) })
	if err != nil {
		t.Fatal(err)
	}
	f.run(t)
	return f
}

// run starts a dispatcher, in place of the one before, which ends as if killed.
func (f *front) run(t testing.TB) {
	t.Helper()
	if f.stop != nil {
		f.stop()
	}
	d, err := handoff.New(handoff.Options{
		Listeners: []int{f.fd}, Waiting: waiting,
		Changed: func() {
			select {
			case f.changed <- struct{}{}:
			default:
			}
		},
		Log: slog.New(slog.NewTextHandler(logWriter{t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(f.stop)
	f.Dispatcher = d
}

// waiting is for TCP exact, for unix sockets whether there is any.
func waiting(fd int) (int, error) {
	n, _, err := steer.Queue(fd)
	if err == nil {
		return n, nil
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	return unix.Poll(poll, 0)
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// instance is the program's side.
type instance struct {
	net.Listener
	id   int
	door *net.UnixAddr
}

// newInstance makes a listener as PID 1 passes it, and takes it through package activation.
func newInstance(t testing.TB, f *front, id int) *instance {
	t.Helper()
	in := &instance{id: id, door: &net.UnixAddr{Name: filepath.Join(f.dir, fmt.Sprint(id)), Net: "unixpacket"}}
	door, err := net.ListenUnix("unixpacket", in.door)
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	door.SetUnlinkOnClose(false)
	raw, err := door.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD, 100) }) // not close-on-exec: passed
	if err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": activation.HandoffName}
	passed, err := activation.Env{
		Lookup: func(k string) (string, bool) { v, ok := environment[k]; return v, ok },
		Unset:  func(string) error { return nil }, PID: 1, FirstFD: fd,
	}.Inherit()
	if err != nil {
		t.Fatal(err)
	}
	listeners, err := passed.AllListeners()
	if err != nil {
		t.Fatal(err)
	}
	in.Listener = listeners[0]
	t.Cleanup(func() { in.Close() })
	return in
}

// dial makes a channel to the instance.
func (in *instance) dial(t testing.TB) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: in.door.Name})
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// serve answers with the instance's number and the peer's address on each line that comes, until the listener is closed.
func (in *instance) serve(t testing.TB) {
	var conns sync.WaitGroup
	var open []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := in.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			open = append(open, conn)
			conns.Go(func() { in.answer(conn) })
		}
	}()
	t.Cleanup(func() {
		in.Close()
		<-done
		for _, conn := range open {
			conn.Close()
		}
		conns.Wait()
	})
}

func (in *instance) answer(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		fmt.Fprintln(conn, in.id, conn.RemoteAddr(), conn.LocalAddr())
	}
}

// start makes instances that serve, and waits until all of them can.
func (f *front) start(t testing.TB, s balance.Strategy, n int) []*instance {
	t.Helper()
	var all []*instance
	var ring []uint16
	for id := 1; id <= n; id++ {
		in := newInstance(t, f, id)
		in.serve(t)
		if err := f.Attach(id, in.dial(t)); err != nil {
			t.Fatal(err)
		}
		all = append(all, in)
		ring = append(ring, uint16(id))
	}
	f.SetRing(s, ring)
	for _, in := range all {
		f.await(t, func() bool { return f.Stat(in.id).Ready })
	}
	return all
}

// await waits until the dispatcher says so.
func (f *front) await(t testing.TB, done func() bool) {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	look := time.NewTicker(time.Millisecond) // counts change without a call of Changed
	defer look.Stop()
	for !done() {
		select {
		case <-f.changed:
		case <-look.C:
		case <-timer.C:
			t.Fatal("it did not come to be")
		}
	}
}

// client is an open connection.
type client struct {
	net.Conn
	r *bufio.Reader
}

func (f *front) connect(t testing.TB) *client {
	t.Helper()
	conn, err := net.Dial(f.addr.Network(), f.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(limit))
	return &client{conn, bufio.NewReader(conn)}
}

// ask sends a line and returns who answered, and what address that one sees.
func (c *client) ask(t testing.TB) (id int, peer string) {
	t.Helper()
	if _, err := io.WriteString(c, "?\n"); err != nil {
		t.Fatal(err)
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	fmt.Sscan(line, &id, &peer)
	return id, peer
}

func TestSpreadIsExact(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		for _, s := range []balance.Strategy{balance.RoundRobin, balance.LeastConnections} {
			t.Run(network+" "+string(s), func(t *testing.T) {
				address := "127.0.0.1:0"
				if network == "unix" {
					address = filepath.Join(t.TempDir(), "public")
				}
				f := open(t, network, address)
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
	for _, s := range []balance.Strategy{balance.RoundRobin, balance.SourceHash} {
		t.Run(string(s), func(t *testing.T) {
			f := open(t, "tcp", "127.0.0.1:0")
			var clients []*client
			for range 100 {
				clients = append(clients, f.connect(t))
			}
			if n, err := f.Waiting(0); n != 100 || err != nil {
				t.Errorf("%d connections wait (%v), want 100", n, err)
			}
			f.start(t, s, 2)
			for _, c := range clients {
				c.ask(t)
			}
		})
	}
}

// An instance that does not accept holds up no other: its orders go to them once it is off the ring. What was given to it
// is theirs when it ends, and also when it ends its listener.
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

// A balancer that is killed takes nothing with it: the next one goes on with the same channels, and knows what is open.
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

// Whoever speaks nonsense on a channel loses it, and harms nobody else.
func TestHostileInstance(t *testing.T) {
	for name, message := range map[string][]byte{
		"garbage":  []byte("GET / HTTP/1.1\r\n\r\n"),
		"too long": make([]byte, wire.MaxSize+1),
		"unasked":  wire.Append(nil, wire.Message{Kind: wire.State, Report: wire.Report{Answered: 5}}),
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t, "tcp", "127.0.0.1:0")
			f.start(t, balance.RoundRobin, 1)
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(pair[1])
			if err := f.Attach(2, pair[0]); err != nil {
				t.Fatal(err)
			}
			hello := wire.Append(nil, wire.Message{Kind: wire.State, Token: askedWith(t, pair[1]), Report: wire.Report{Answer: true}})
			for _, m := range [][]byte{hello, message} {
				if _, err := unix.Write(pair[1], m); err != nil {
					t.Fatal(err)
				}
			}
			f.SetRing(balance.RoundRobin, []uint16{1, 2})
			// The descriptor has hung up: 2 is gone.
			poll := []unix.PollFd{{Fd: int32(pair[1])}}
			if n, err := unix.Poll(poll, int(limit.Milliseconds())); n != 1 || err != nil {
				t.Fatalf("channel is open: %d, %v", n, err)
			}
			for range 4 {
				if id, _ := f.connect(t).ask(t); id != 1 {
					t.Errorf("instance %d has answered", id)
				}
			}
		})
	}
}

// askedWith reads a balancer's greeting, and returns the token to answer with.
func askedWith(t *testing.T, channel int) int {
	t.Helper()
	buf := make([]byte, wire.MaxSize)
	for {
		n, err := unix.Read(channel, buf)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := wire.FromBalancer(buf[:n], 0); err == nil && m.Kind == wire.Ask {
			return m.Token
		}
	}
}

// An answer to the balancer before is not taken for one's own: orders may come after it.
func TestAnswerToAnEarlierBalancer(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	if err := f.Attach(1, pair[0]); err != nil {
		t.Fatal(err)
	}
	token := askedWith(t, pair[1])
	for _, m := range []wire.Message{
		{Kind: wire.State, Token: token ^ 1, Report: wire.Report{Answered: 3, Answer: true}},
		{Kind: wire.State, Report: wire.Report{Answered: 5}},
		{Kind: wire.State, Token: token, Report: wire.Report{Answered: 5, Closed: 1, Answer: true}},
	} {
		if _, err := unix.Write(pair[1], wire.Append(nil, m)); err != nil {
			t.Fatal(err)
		}
	}
	f.await(t, func() bool { st := f.Stat(1); return st.Ready && st.Open == 4 })
}

// An instance bears a balancer that speaks nonsense, and takes the next one.
func TestHostileBalancer(t *testing.T) {
	f := open(t, "tcp", "127.0.0.1:0")
	in := newInstance(t, f, 1)
	in.serve(t)
	for _, m := range [][]byte{
		[]byte("?"), make([]byte, 5000),
		wire.Append(nil, wire.Message{Kind: wire.Take, Count: 1}),         // of a listener that it has not
		wire.Append(nil, wire.Message{Kind: wire.Listeners, Count: 1}),    // without it
		wire.Append(nil, wire.Message{Kind: wire.State, Listener: 0}),     // its own words
		wire.Append(nil, wire.Message{Kind: wire.Give, Count: 1})[:8],     // nothing given
		wire.Append(nil, wire.Message{Kind: wire.Take, Count: 1_000_000}), // too many
	} {
		fd := in.dial(t)
		if _, err := unix.Write(fd, m); err != nil {
			t.Fatal(err)
		}
		poll := []unix.PollFd{{Fd: int32(fd)}}
		if n, err := unix.Poll(poll, int(limit.Milliseconds())); n != 1 || err != nil {
			t.Errorf("channel is open after %q: %d, %v", m, n, err)
		}
		unix.Close(fd)
	}
	if err := f.Attach(1, in.dial(t)); err != nil {
		t.Fatal(err)
	}
	f.SetRing(balance.RoundRobin, []uint16{1})
	f.connect(t).ask(t)
}

// net/http lives on these connections as on its own, also across keep-alive, time-outs and its own shutdown.
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

// Both measure client, balancer and instance in one process: the difference between them is the balancer's.
func BenchmarkTake(b *testing.B) { benchmark(b, balance.RoundRobin) }
func BenchmarkGive(b *testing.B) { benchmark(b, balance.SourceHash) }
