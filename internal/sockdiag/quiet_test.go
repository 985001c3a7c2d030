package sockdiag

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestActivity(t *testing.T) {
	const ms = time.Millisecond
	const quiet = 100 * ms
	for _, tc := range []struct {
		name string
		i    info
		want activity
	}{
		{"opened just now", info{sinceSent: 4 * ms, sinceRecv: 4 * ms}, busy},
		{"opened long ago, silent", info{sinceSent: quiet, sinceRecv: quiet}, idle},
		{"request just answered", info{sinceSent: quiet - ms, sinceRecv: 500 * ms, segsIn: 1, segsOut: 1}, busy},
		{"answered", info{sinceSent: 200 * ms, sinceRecv: 500 * ms, segsIn: 1, segsOut: 1}, idle},
		{"request waits", info{sinceSent: 500 * ms, sinceRecv: 200 * ms, segsIn: 2, segsOut: 1}, busy},
		{"first request waits since the tick of the accept", info{sinceSent: 500 * ms, sinceRecv: 500 * ms, segsIn: 1}, busy},
		{"greeting sent, nothing asked", info{sinceSent: 500 * ms, sinceRecv: 500 * ms, segsOut: 1}, idle},
		{"same tick", info{sinceSent: 900 * ms, sinceRecv: 900 * ms, sinceAck: 900 * ms, segsIn: 2, segsOut: 2}, unsure},
		{"same tick, answer acknowledged later", info{sinceSent: 900 * ms, sinceRecv: 900 * ms, sinceAck: 860 * ms, segsIn: 2, segsOut: 2}, idle},
		{"same tick, probe answered", info{sinceSent: 9 * time.Second, sinceRecv: 9 * time.Second, sinceAck: 5 * time.Second, segsIn: 2, segsOut: 2}, unsure},
		{"same tick, long ago", info{sinceSent: unsureNext, sinceRecv: unsureNext, sinceAck: unsureNext, segsIn: 2, segsOut: 2}, idle},
		{"same tick, first request", info{sinceSent: 900 * ms, sinceRecv: 900 * ms, sinceAck: 900 * ms, segsIn: 1, segsOut: 1}, unsure},
		{"same tick, first request, long ago", info{sinceSent: unsureFirst, sinceRecv: unsureFirst, sinceAck: unsureFirst, segsIn: 1, segsOut: 1}, idle},
	} {
		if got := tc.i.activity(quiet); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestPending(t *testing.T) {
	for _, tc := range []struct {
		name string
		s    socket
		want bool
	}{
		{"nothing", socket{state: 1, hasInfo: true}, false},
		{"unread", socket{state: 1, hasInfo: true, rqueue: 1}, true},
		{"unsent", socket{state: 1, hasInfo: true, wqueue: 1}, true},
		{"unread end", socket{state: stateCloseWait, hasInfo: true, rqueue: 1}, false},
		{"unread byte and end", socket{state: stateCloseWait, hasInfo: true, rqueue: 2}, true},
		{"no tcp_info", socket{state: 1}, true},
	} {
		if got := tc.s.pending(); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

// testQuiet is longer than a tick of any kernel, so that the tests can wait for real silence.
const testQuiet = 60 * time.Millisecond

// silent waits until nothing has moved for testQuiet on the n connections of f, and returns their
// Stat.
func silent(t *testing.T, c *Conn, f Filter, n int) Stat {
	t.Helper()
	f.Quiet = testQuiet
	eventually(t, "connections fall silent", func() bool {
		still := 0
		if err := c.connections(f, func(s *socket) error {
			if min(s.info.sinceSent, s.info.sinceRecv) >= testQuiet {
				still++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return still == n
	})
	return stat(t, c, f)
}

func TestQuietRaw(t *testing.T) {
	c := open(t)
	ln := listen(t, "tcp4", "127.0.0.1:0")
	f := Filter{Ports: []uint16{port(ln)}}
	client := dial(t, ln, "tcp4")
	server := accept(t, ln)
	if st := stat(t, c, Filter{Ports: f.Ports, Quiet: time.Hour}); st != (Stat{Open: 1, Busy: 1}) {
		t.Errorf("opened just now: got %+v, want busy", st)
	}
	if st := silent(t, c, f, 1); st != (Stat{Open: 1}) {
		t.Errorf("never carried a byte: got %+v, want quiet", st)
	}
	transfer(t, client, server, 10) // read, but not answered
	if st := silent(t, c, f, 1); st != (Stat{Open: 1, Busy: 1}) {
		t.Errorf("request: got %+v, want busy", st)
	}
	transfer(t, server, client, 10)
	if st := silent(t, c, f, 1); st != (Stat{Open: 1}) {
		t.Errorf("answered: got %+v, want quiet", st)
	}
	if _, err := client.Write([]byte("x")); err != nil { // not read
		t.Fatal(err)
	}
	if st := silent(t, c, f, 1); st != (Stat{Open: 1, Busy: 1}) {
		t.Errorf("unread: got %+v, want busy", st)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	transfer(t, server, client, 1)
	if err := client.(*net.TCPConn).CloseWrite(); err != nil { // the end is not read
		t.Fatal(err)
	}
	if st := silent(t, c, f, 1); st != (Stat{Open: 1}) {
		t.Errorf("client has finished: got %+v, want quiet", st)
	}
	// An answer that the client does not read: it does not fit into the buffers.
	written := make(chan error)
	go func() {
		_, err := server.Write(make([]byte, 64<<20))
		written <- err
	}()
	eventually(t, "an unsent answer is busy", func() bool { return silent(t, c, f, 1) == Stat{Open: 1, Busy: 1} })
	client.Close() // unread bytes: a reset
	if err := <-written; err == nil {
		t.Error("wrote all")
	}
}

func transfer(t *testing.T, from, to net.Conn, n int) {
	t.Helper()
	if _, err := from.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

// web is a real HTTP server whose /wait answers when it is told to and whose /stream sends one byte
// each time it is.
type web struct {
	ln     net.Listener
	client http.Client
	arrive chan struct{}
	next   chan struct{}
}

func startWeb(t *testing.T) *web {
	t.Helper()
	w := &web{ln: listen(t, "tcp4", "127.0.0.1:0"), arrive: make(chan struct{}), next: make(chan struct{})}
	transport := &http.Transport{}
	w.client.Transport = transport
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) { io.WriteString(rw, "hello") })
	mux.HandleFunc("/wait", func(rw http.ResponseWriter, r *http.Request) {
		w.arrive <- struct{}{}
		<-w.next
	})
	mux.HandleFunc("/stream", func(rw http.ResponseWriter, r *http.Request) {
		for range w.next {
			io.WriteString(rw, "x")
			http.NewResponseController(rw).Flush()
			w.arrive <- struct{}{}
		}
	})
	srv := http.Server{Handler: mux}
	served := make(chan struct{})
	go func() {
		defer close(served)
		srv.Serve(w.ln)
	}()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		srv.Close()
		<-served
	})
	return w
}

// ask sends a request and returns a channel that closes once the whole answer was read.
func (w *web) ask(t *testing.T, path string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, err := w.client.Get("http://" + w.ln.Addr().String() + path)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Error(err)
		}
	}()
	return done
}

func TestQuietHTTP(t *testing.T) {
	c := open(t)
	w := startWeb(t)
	f := Filter{Ports: []uint16{port(w.ln)}}

	<-w.ask(t, "/")
	if st := silent(t, c, f, 1); st.Open != 1 || st.Busy != 0 {
		t.Errorf("idle after the first answer: got %+v, want not busy", st)
	}
	// The same connection, silent before: no doubt about the order.
	done := w.ask(t, "/wait")
	<-w.arrive
	if st := silent(t, c, f, 1); st != (Stat{Open: 1, Busy: 1}) {
		t.Errorf("in flight: got %+v, want busy", st)
	}
	w.next <- struct{}{}
	<-done
	if st := silent(t, c, f, 1); st != (Stat{Open: 1}) {
		t.Errorf("idle after a slow answer: got %+v, want quiet", st)
	}
	// A client that asks again at once: never taken for quiet.
	for range 20 {
		<-w.ask(t, "/")
	}
	done = w.ask(t, "/wait")
	<-w.arrive
	if st := silent(t, c, f, 1); st.Quiet() != 0 {
		t.Errorf("in flight right after an answer: got %+v, want busy or unsure", st)
	}
	w.next <- struct{}{}
	<-done
}

func TestQuietStream(t *testing.T) {
	c := open(t)
	w := startWeb(t)
	f := Filter{Ports: []uint16{port(w.ln)}, Quiet: time.Minute}
	done := w.ask(t, "/stream")
	for range 3 {
		w.next <- struct{}{}
		<-w.arrive
		if st := stat(t, c, f); st != (Stat{Open: 1, Busy: 1}) {
			t.Errorf("streaming: got %+v, want busy", st)
		}
	}
	close(w.next)
	<-done
	if st := silent(t, c, f, 1); st.Open != 1 || st.Busy != 0 {
		t.Errorf("idle after a stream: got %+v, want not busy", st)
	}
}

func TestWaiting(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name string
		i    info
		want time.Duration
	}{
		{"never asked", info{sinceSent: 500 * ms, sinceRecv: 500 * ms}, 0},
		{"answered", info{sinceSent: 200 * ms, sinceRecv: 500 * ms, segsIn: 1, segsOut: 1}, 0},
		{"never answered", info{sinceSent: 500 * ms, sinceRecv: 200 * ms, segsIn: 1}, Never},
		{"asked again", info{sinceSent: 500 * ms, sinceRecv: 200 * ms, segsIn: 2, segsOut: 1}, 500 * ms},
		{"same tick", info{sinceSent: 900 * ms, sinceRecv: 900 * ms, segsIn: 2, segsOut: 2}, 0},
	} {
		if got := (&socket{info: tc.i, hasInfo: true}).waiting(); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
	if got := new(socket).waiting(); got != Never {
		t.Errorf("without tcp_info: got %v, want never", got)
	}
}
