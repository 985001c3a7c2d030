// Command hostile is a web server whose instance 2 attacks its own listener, ten times a second,
// with all that the kernel lets a process do to a socket it was given. The other instances are
// honest.
//
// It runs in the containers of test/chaos alone.
package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// listener is the first descriptor that PID 1 passes (sd_listen_fds(3)).
const listener = 3

// pause lies between two attacks: often enough to be there at every fault, and no load.
const pause = 100 * time.Millisecond

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "hostile: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	file := os.NewFile(listener, "listener")
	l, err := net.FileListener(file)
	if err != nil {
		return err
	}
	instance := os.Getenv("INSTANCE")
	if instance == "2" {
		go attack(int(file.Fd())) // ends with the process
	}
	answer := fmt.Sprintf("instance=%s pid=%d\n", instance, os.Getpid())
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ms, err := strconv.Atoi(r.FormValue("ms")); err == nil {
			time.Sleep(time.Duration(ms) * time.Millisecond)
		}
		fmt.Fprint(w, answer)
	})
	for {
		// What the attacks do to the listener ends Serve, which would close it.
		if err := http.Serve(lasting{l, answer}, handler); instance != "2" {
			return err
		}
		time.Sleep(pause)
	}
}

// lasting is a listener that its server does not close. Its connections bear the instance's name.
type lasting struct {
	net.Listener
	name string
}

func (lasting) Close() error { return nil }

func (l lasting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return named{c, l.name}, nil
}

// named adds the name to the one answer that no handler gives: 400, which the server says to a
// request of which it gets only the beginning. A listener that was shut down twice does that.
type named struct {
	net.Conn
	name string
}

func (c named) Write(b []byte) (int, error) {
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 400 ")) {
		return c.Conn.Write(b)
	}
	_, err := c.Conn.Write(append(bytes.Clone(b), "\n"+c.name...))
	return len(b), err
}

// attack does one thing after the other for as long as the process lives. What is refused is no
// matter.
func attack(fd int) {
	_ = unix.SetNonblock(fd, true) // Fd has made it blocking
	attacks := []func(fd int){steal, detach, dropAll, backlog, leave, options}
	for i := 0; ; i++ {
		attacks[i%len(attacks)](fd)
		time.Sleep(pause)
	}
}

// steal replaces the program that spreads the whole group's connections by one that gives all to
// one member.
func steal(fd int) {
	all := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	_ = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &all[0]})
}

// detach takes the group's program away.
func detach(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0)
}

// dropAll has the kernel drop what comes to this listener.
func dropAll(fd int) {
	none := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	_ = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &none[0]})
}

// backlog leaves room for one connection.
func backlog(fd int) { _ = unix.Listen(fd, 0) }

// leave resets what waits, leaves the group and comes back as its newest member.
func leave(fd int) {
	_ = unix.Shutdown(fd, unix.SHUT_RD)
	time.Sleep(pause)
	_ = unix.Listen(fd, 128)
}

// options sets what accepted connections inherit.
func options(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 100)
}
