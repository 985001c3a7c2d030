package activation

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/listenfds"
)

// childMode makes the test binary a service instead of a test. PID 1 knows the PID of a service
// before its program starts; the tests do not, so the child first sets LISTEN_PID itself and
// executes itself once more.
const childMode = "ACTIVATION_TEST_CHILD"

func TestMain(m *testing.M) {
	switch mode := os.Getenv(childMode); {
	case mode == "":
		os.Exit(m.Run())
	case strings.HasPrefix(mode, "exec:"):
		os.Exit(childExec(strings.TrimPrefix(mode, "exec:")))
	case mode == "report":
		os.Exit(childReport())
	case mode == "serve":
		os.Exit(childServe())
	default:
		fmt.Fprintf(os.Stderr, "unknown %s=%q\n", childMode, mode)
		os.Exit(2)
	}
}

func childExec(mode string) int {
	os.Setenv(childMode, mode)
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	if os.Getenv("LISTEN_PIDFDID") == "own" {
		id, known, err := listenfds.OwnPidfdID()
		if err != nil || !known {
			os.Unsetenv("LISTEN_PIDFDID")
		} else {
			os.Setenv("LISTEN_PIDFDID", strconv.FormatUint(id, 10))
		}
	}
	err := syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	fmt.Fprintf(os.Stderr, "exec: %v\n", err)
	return 1
}

// child is a service: the test binary, executed again.
type child struct {
	*exec.Cmd
	stdout *bufio.Scanner
}

// startChild starts the test binary in a mode with files as descriptors 3 and up.
func startChild(t *testing.T, mode string, files []*os.File, env ...string) *child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childMode+"=exec:"+mode, "LISTEN_FDS="+strconv.Itoa(len(files)))
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0") // the race detector's own second at exit
	cmd.Env = append(cmd.Env, env...)
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{Cmd: cmd, stdout: bufio.NewScanner(stdout)}
	t.Cleanup(func() {
		if c.ProcessState == nil {
			c.Process.Kill()
			c.Wait()
		}
	})
	return c
}

// place puts copies of fds at consecutive numbers, as execve would leave them, and returns an
// environment that says so.
func place(t *testing.T, names string, fds ...int) Env {
	t.Helper()
	const first = 700
	for i, fd := range fds {
		if err := unix.Dup3(fd, first+i, 0); err != nil {
			t.Fatal(err)
		}
	}
	vars := map[string]string{"LISTEN_PID": "42", "LISTEN_FDS": strconv.Itoa(len(fds)), "LISTEN_FDNAMES": names}
	return testEnv(vars, first)
}

func testEnv(vars map[string]string, first int) Env {
	return Env{
		Lookup:  func(key string) (string, bool) { v, ok := vars[key]; return v, ok },
		Unset:   func(key string) error { delete(vars, key); return nil },
		PID:     42,
		FirstFD: first,
	}
}

func inherit(t *testing.T, e Env) *Descriptors {
	t.Helper()
	passed, err := e.Inherit()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { passed.Close() })
	return passed
}

// noLeaks fails the test if it ends with other descriptors or more goroutines than it began with.
// Call it first.
func noLeaks(t *testing.T) {
	t.Helper()
	// The runtime opens its epoll descriptors with the first use of the poller, once.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	fds, goroutines := openFDs(t), runtime.NumGoroutine()
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		// Goroutines of net/http end a moment after the connection that they served.
		deadline := time.Now().Add(5 * time.Second)
		for time.Now().Before(deadline) && (runtime.NumGoroutine() > goroutines || !slices.Equal(openFDs(t), fds)) {
			time.Sleep(time.Millisecond)
		}
		if after := openFDs(t); !slices.Equal(fds, after) {
			t.Errorf("descriptors before: %q\nafter: %q", fds, after)
		}
		if n := runtime.NumGoroutine(); n > goroutines {
			stacks := make([]byte, 1<<16)
			t.Errorf("%d goroutines before, %d after:\n%s", goroutines, n, stacks[:runtime.Stack(stacks, true)])
		}
	})
}

func openFDs(t *testing.T) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, link := range links {
		// The directory that Glob itself had open is gone by now.
		if target, err := os.Readlink(link); err == nil {
			open = append(open, filepath.Base(link)+" "+target)
		}
	}
	slices.Sort(open)
	return open
}

// fd returns the number of a socket or file without changing its mode. It stays owned by c.
func fd(t *testing.T, c any) int {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fd int
	if err := raw.Control(func(n uintptr) { fd = int(n) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

// rawSocket opens a socket in blocking mode, bound and, for the types that can, listening. Package
// net would make it non-blocking.
func rawSocket(t *testing.T, domain, sotype int, sa unix.Sockaddr) int {
	t.Helper()
	fd, err := unix.Socket(domain, sotype|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	if sotype == unix.SOCK_STREAM || sotype == unix.SOCK_SEQPACKET {
		if err := unix.Listen(fd, 16); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

func nonblocking(t *testing.T, fd int) bool {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags&unix.O_NONBLOCK != 0
}

// listenTCP opens a loopback listener and a file of it to pass on. Both are closed with the test.
func listenTCP(t *testing.T) (*net.TCPListener, *os.File) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(file.Close(), l.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return l, file
}
