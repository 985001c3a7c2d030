package sockdiag

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// holdEnv makes the test binary a server: it accepts as many connections as it is told to, and
// holds them until its stdin ends.
const holdEnv = "UNITGEN_TEST_HOLD"

func TestMain(m *testing.M) {
	if os.Getenv(holdEnv) != "" {
		if err := hold(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	fds, goroutines := count()
	code := m.Run()
	// A fuzzing run leaves goroutines of package testing.
	if fuzzing := flag.Lookup("test.fuzz").Value.String() != ""; code == 0 && !fuzzing && !settles(fds, goroutines) {
		f, g := count()
		fmt.Fprintf(os.Stderr, "leak: %d descriptors and %d goroutines before, %d and %d after\n", fds, goroutines, f, g)
		code = 1
	}
	os.Exit(code)
}

// hold listens, prints its address, and accepts one connection for each line "accept".
func hold(in io.Reader, out io.Writer) error {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	fmt.Fprintln(out, ln.Addr())
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		fmt.Fprintln(out, "accepted")
	}
	return lines.Err()
}

func count() (fds, goroutines int) {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, e := range list {
		// The runtime's own stay open from the first use on.
		if target, _ := os.Readlink("/proc/self/fd/" + e.Name()); !strings.HasPrefix(target, "anon_inode:") {
			fds++
		}
	}
	return fds, runtime.NumGoroutine()
}

// settles waits for goroutines of net/http that end just after their connection.
func settles(fds, goroutines int) bool {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if f, g := count(); f <= fds && g <= goroutines {
			return true
		}
	}
	return false
}

// eventually runs f until it returns true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

func open(t *testing.T) *Conn {
	t.Helper()
	fd, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	// Go listens with multipath TCP by default, PID 1 does not.
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func dial(t *testing.T, ln net.Listener, network string) net.Conn {
	t.Helper()
	host := "127.0.0.1"
	if network == "tcp6" {
		host = "::1"
	}
	conn, err := net.Dial(network, net.JoinHostPort(host, fmt.Sprint(port(ln))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func accept(t *testing.T, ln net.Listener) net.Conn {
	t.Helper()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func port(ln net.Listener) uint16 { return uint16(ln.Addr().(*net.TCPAddr).Port) }
