package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// piped is a listener whose clients say where they come from.
type piped struct {
	conns chan net.Conn
	ended chan struct{}
}

func (l *piped) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

func (l *piped) Close() error {
	select {
	case <-l.ended:
	default:
		close(l.ended)
	}
	return nil
}

func (l *piped) Addr() net.Addr { return &net.TCPAddr{} }

type from struct {
	net.Conn
	addr string
}

func (f from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.addr)) }

// crowded runs a server for the length of f, which dials it from addresses. Time stands still while
// somebody has something to do.
func crowded(t *testing.T, f func(dial func(addr string) net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ln := &piped{make(chan net.Conn), make(chan struct{})}
		s := &Server{App: "api", Ask: fixed(State{State: Up, Weight: 100}), Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx, ln) }()
		f(func(addr string) net.Conn {
			ours, theirs := net.Pipe()
			t.Cleanup(func() { ours.Close() })
			ln.conns <- from{theirs, addr}
			return ours
		})
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// stall begins a request that never ends, and returns a channel with the answer.
func stall(conn net.Conn) <-chan string {
	answer := make(chan string, 1)
	go func() {
		io.WriteString(conn, "GET / HTTP/1.1\r\nX: ")
		text, _ := io.ReadAll(conn)
		answer <- string(text)
	}()
	synctest.Wait()
	return answer
}

// ask returns the answer to an agent check and how long that took.
func ask(t *testing.T, conn net.Conn) (answer string, took time.Duration) {
	t.Helper()
	began := time.Now()
	go io.WriteString(conn, "agent\n")
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Error(err)
	}
	return string(text), time.Since(began)
}

// One address cannot hold more than its share: its oldest client is answered on what it has said so
// far.
func TestOneAddressHasItsShare(t *testing.T) {
	crowded(t, func(dial func(string) net.Conn) {
		var answers []<-chan string
		for range maxOfPeer + 3 {
			answers = append(answers, stall(dial("192.0.2.1:1")))
		}
		stayed := stall(dial("192.0.2.2:1"))
		for i, answer := range answers {
			select {
			case text := <-answer:
				if i >= 3 || len(text) < 12 || text[:12] != "HTTP/1.1 400" {
					t.Errorf("client %d of %d is answered %q", i, len(answers), text)
				}
			default:
				if i < 3 {
					t.Errorf("client %d of %d stays", i, len(answers))
				}
			}
		}
		select {
		case text := <-stayed:
			t.Errorf("a client of another address is answered %q", text)
		default:
		}
		if answer, took := ask(t, dial("192.0.2.1:2")); answer != "ready up 100%\n" || took != 0 {
			t.Errorf("who asks from the same address is answered %q after %s", answer, took)
		}
	})
}

// Clients that never end hold every place, from however many addresses, and keep nobody out.
func TestSlowClientsKeepNobodyOut(t *testing.T) {
	crowded(t, func(dial func(string) net.Conn) {
		for i := range 2 * maxClients {
			stall(dial(fmt.Sprintf("[2001:db8:0:%x::1]:1", i)))
		}
		for range 10 {
			if answer, took := ask(t, dial("192.0.2.1:1")); answer != "ready up 100%\n" || took != 0 {
				t.Errorf("answer %q after %s", answer, took)
			}
		}
	})
}

// A client that says nothing, or does not end, costs a bounded time.
func TestSlowClientsEnd(t *testing.T) {
	crowded(t, func(dial func(string) net.Conn) {
		began := time.Now()
		<-stall(dial("192.0.2.1:1"))
		if took := time.Since(began); took != requestTime {
			t.Errorf("a request that never ends takes %s, want %s", took, requestTime)
		}
		began = time.Now()
		conn := dial("192.0.2.1:1")
		go io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
		time.Sleep(clientTime) // it does not read the answer
		synctest.Wait()
		if _, err := io.ReadAll(conn); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != clientTime {
			t.Errorf("an answer that nobody reads takes %s, want %s", took, clientTime)
		}
	})
}

func TestPeersByAddress(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1:1":          "192.0.2.1",
		"[::ffff:192.0.2.1]:9": "192.0.2.1",
		"[2001:db8::1:2:3]:9":  "2001:db8::/64",
		"[fe80::1%eth0]:9":     "fe80::/64",
	} {
		if got := peerOf(from{nil, addr}); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
	ln, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ours, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, want := peerOf(conn), fmt.Sprintf("user %d", os.Getuid()); got != want {
		t.Errorf("a user's peer is %q, want %q", got, want)
	}
}
