package bindnotify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/needs"
)

// The test binary is also what it tests: by roleVariable it becomes the process that PID 1 starts,
// the supervisor that this one starts, or the program that it then becomes.
const (
	roleVariable    = "BINDNOTIFY_TEST_ROLE"
	programVariable = "BINDNOTIFY_TEST_PROGRAM"

	// atOnce keeps the race detector from holding each of these processes for a second at its end.
	atOnce = "GORACE=atexit_sleep_ms=0"
)

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		os.Exit(m.Run())
	case "parent":
		os.Exit(parent())
	case "launch":
		fatal(launch())
	case "supervise":
		signal.Ignore() // as the command does
		s := Supervisor{Learn: os.Args[2] == "learn"}
		if port, err := strconv.Atoi(os.Args[2]); err == nil {
			s.ProgramPort = uint16(port)
		}
		fatal(s.Serve())
		os.Exit(0)
	case "program":
		fatal(programs[os.Getenv(programVariable)](os.Args[1:]))
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// parent is in the place of PID 1: the supervisor is its child, too. It ends with the status of the
// program when both have ended.
func parent() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleVariable+"=launch")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	for fd := 3; ; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || fd >= 3+listenersPassed() {
			break
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), "listener"))
	}
	fatal(cmd.Start())
	status := 1
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return status
		case pid == cmd.Process.Pid:
			status = ws.ExitStatus()
		case ws.ExitStatus() != 0 && !ws.Signaled():
			fmt.Fprintln(os.Stderr, "the supervisor ended with", ws.ExitStatus())
			return 1
		}
	}
}

func listenersPassed() int {
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	return n
}

func launch() error {
	runtime.LockOSThread()
	c := Command{Path: "/proc/self/exe", Args: []string{"lbshim", Verb, os.Getenv("BINDNOTIFY_TEST_MODE")}, Env: []string{roleVariable + "=supervise", atOnce}}
	for i := range listenersPassed() {
		c.Listeners = append(c.Listeners, 3+i)
	}
	if err := Launch(c); err != nil {
		return err
	}
	// The first of two assignments would count, and launch without an end.
	environ := slices.DeleteFunc(os.Environ(), func(a string) bool { return strings.HasPrefix(a, roleVariable+"=") })
	return unix.Exec("/proc/self/exe", os.Args, append(environ, roleVariable+"=program"))
}

// supervised is a program under test.
type supervised struct {
	*exec.Cmd
	out output
	in  interface{ Close() error }
}

// output is what a program has printed until now.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs program under a supervisor that has listeners. mode is a port for --program-port=,
// "learn", or empty.
func start(t *testing.T, mode, program string, listeners []*net.TCPListener, args ...string) *supervised {
	t.Helper()
	s := &supervised{Cmd: exec.CommandContext(t.Context(), "/proc/self/exe", args...)}
	s.Env = append(os.Environ(), atOnce, roleVariable+"=parent", programVariable+"="+program, "BINDNOTIFY_TEST_MODE="+mode,
		"LISTEN_FDS="+strconv.Itoa(len(listeners)))
	s.Stdout, s.Stderr = &s.out, &s.out
	for _, l := range listeners {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s.ExtraFiles = append(s.ExtraFiles, f)
	}
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in = in
	if err := s.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); s.Process.Kill() })
	return s
}

// finish waits for the end of program and supervisor and decodes what the program printed.
func (s *supervised) finish(t *testing.T, result any) {
	t.Helper()
	s.in.Close()
	err := s.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) || err != nil {
		t.Fatalf("program: %v\n%s", err, s.out.String())
	}
	if result == nil {
		return
	}
	if err := json.Unmarshal([]byte(s.out.String()), result); err != nil {
		t.Fatalf("program printed %q: %v", s.out.String(), err)
	}
}

// listen opens a listener as PID 1 would, with a backlog that no program asks for.
func listen(t *testing.T, network, address string) *net.TCPListener {
	t.Helper()
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), network, address)
	if err != nil {
		needs.Missing(t, "%v", err) // no IPv6
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

func port(l net.Listener) string {
	_, port, _ := strings.Cut(strings.TrimLeft(l.Addr().String(), "[:]"), ":")
	if port == "" {
		return strings.TrimLeft(l.Addr().String(), "[:]")
	}
	return port
}
