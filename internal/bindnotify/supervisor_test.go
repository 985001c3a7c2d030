package bindnotify

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// waitLimit ends waits that cannot end.
const waitLimit = 30 * time.Second

// supervisor waits for the supervisor of s to have seen what ok accepts.
func (s *supervised) supervisor(t *testing.T, ok func(State) bool) State {
	t.Helper()
	var last State
	for end := time.Now().Add(waitLimit); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for _, pid := range children(s.Process.Pid) {
			if !isSupervisor(pid) {
				continue
			}
			state, err := read(pid)
			if last = state; err == nil && ok(last) {
				return last
			}
		}
	}
	t.Fatalf("the supervisor has seen:\n%s\nthe program says:\n%s", last, s.out.String())
	return State{}
}

// children are the processes that pid is the parent of.
func children(pid int) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		if parent, ok := procField(dir+"/status", "PPid:"); ok && string(parent) == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, child)
		}
	}
	return pids
}

func seen(kind FactKind) func(State) bool {
	return func(s State) bool { _, ok := s.first(kind); return ok }
}

// ask connects and returns the address that the server saw, and the client's.
func ask(t *testing.T, address string) (seen, own string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(waitLimit))
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), conn.LocalAddr().String()
}

func TestProgramServesOnTheListener(t *testing.T) {
	for _, c := range []struct {
		name, program string
		args          func(port string) []string
	}{
		{"thread", "server", func(port string) []string { return []string{"tcp4", "0.0.0.0:" + port} }},
		{"IPv6 program", "server", func(port string) []string { return []string{"tcp", ":" + port} }},
		{"again", "again", func(port string) []string { return []string{port} }},
		{"grandchild", "child", func(port string) []string { return []string{"0.0.0.0:" + port} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := listen(t, "tcp4", "127.0.0.1:0")
			s := start(t, "", c.program, []*net.TCPListener{l}, c.args(port(l))...)
			state := s.supervisor(t, seen(Serves))
			if got, want := ask(t, l.Addr().String()); got != want {
				t.Errorf("the server saw %s, the client is %s", got, want)
			}
			// A stop signal goes to all of a unit, and what is shutting down may bind still.
			for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT} {
				if err := unix.Kill(state.PID, signal); err != nil {
					t.Error(err)
				}
			}
			ask(t, l.Addr().String())
			s.finish(t, nil)
			if _, err := os.Stat("/proc/" + strconv.Itoa(state.PID)); err == nil {
				t.Error("the supervisor has not ended with the program")
			}
			if !socketOf(t, l).listens() {
				t.Error("the program's end has closed the listener")
			}
		})
	}
}

// socketOf is lent until the test's end.
func socketOf(t *testing.T, l *net.TCPListener) socket {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return socket(f.Fd())
}

func TestOptionsAreKept(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	backlog, err := unix.GetsockoptTCPInfo(int(socketOf(t, l)), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	var got optionsResult
	start(t, "", "options", []*net.TCPListener{l}, port(l)).finish(t, &got)
	want := optionsResult{
		Same: true, Nonblocking: true, ClosesOnExec: true, KeepAlive: 1, NoDelay: 1, Idle: 77, UserTimeout: 12345, DeferAccept: 1,
		ReceiveBuffer: 131072, Class: 0x10, Timeout: 7, Backlog: backlog.Sacked, Address: l.Addr().String(),
	}
	if got != want {
		t.Errorf("the program found\n%+v, want\n%+v", got, want)
	}
}

// What a program binds beside the app's port is its own.
func TestOtherBindsGoOn(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	p := port(l)
	dir := t.TempDir()
	var got []string
	start(t, "", "binds", []*net.TCPListener{l}, "tcp4", "127.0.0.1:0", "udp", "127.0.0.1:"+p, "unix", dir+"/socket", "netlink", "",
		"tcp4", "127.0.0.2:"+p, "tcp4", "127.0.0.1:"+p).finish(t, &got)
	if len(got) != 6 || strings.HasSuffix(got[0], ":"+p) || !strings.HasPrefix(got[0], "127.0.0.1:") {
		t.Fatalf("binds = %q", got)
	}
	// 127.0.0.2 is a loopback address as 127.0.0.1 is: the app's counts.
	if want := []string{"127.0.0.1:" + p, dir + "/socket", "netlink", "127.0.0.1:" + p, "127.0.0.1:" + p}; !slices.Equal(got[1:], want) {
		t.Errorf("binds = %q, want %q", got[1:], want)
	}
}

func TestProgramForIPv4GetsNoIPv6Listener(t *testing.T) {
	l := listen(t, "tcp", "[::]:0")
	var got []string
	start(t, "", "binds", []*net.TCPListener{l}, "tcp4", "0.0.0.0:"+port(l)).finish(t, &got)
	if len(got) != 1 || got[0] != unix.EADDRINUSE.Error() {
		t.Errorf("bind = %q, want %q", got, unix.EADDRINUSE.Error())
	}
}

func TestProgramPort(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	s := start(t, "8888", "server", []*net.TCPListener{l}, "tcp4", "0.0.0.0:8888")
	s.supervisor(t, seen(Serves))
	ask(t, l.Addr().String())
	s.finish(t, nil)
}

// Learning opens nothing to the network, and needs no port: not one that is taken, nor one below
// 1024.
func TestLearn(t *testing.T) {
	taken := listen(t, "tcp4", "127.0.0.1:0")
	for _, address := range []string{taken.Addr().String(), "0.0.0.0:1", "127.0.0.1:1"} {
		s := start(t, "learn", "server", nil, "tcp4", address)
		state := s.supervisor(t, seen(Listens))
		f, _ := state.first(Listens)
		if f.Address.String() != address || f.Protocol != "tcp" || f.IPv6 {
			t.Errorf("learned %+v, want %s", f, address)
		}
		s.finish(t, nil)
	}
}

func TestSteeringStays(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	var attached string
	start(t, "", "steer", []*net.TCPListener{l}, port(l)).finish(t, &attached)
	// Only what is attached can be detached.
	if err := unix.SetsockoptInt(int(socketOf(t, l)), unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0); err == nil {
		t.Error("the program has attached a steering program to the listener")
	}
}

// libseccomp asks with no filter whether the kernel knows the flag, in each program that uses it.
func TestNotificationIsWantedWithAFilter(t *testing.T) {
	for filter, want := range map[uint64]int{0: 0, 0x7fff0000: 1} {
		facts := 0
		s := Supervisor{calls: nativeCalls(), Note: func(Fact) { facts++ }}
		n := notification{pid: uint32(os.Getpid()), number: s.calls.seccomp}
		n.arguments[1], n.arguments[2] = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, filter
		if s.decide(&n) != goOn || facts != want {
			t.Errorf("%d facts of a filter at %#x, want %d", facts, filter, want)
		}
	}
}

func TestSupervisorIsNoChild(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	var none bool
	start(t, "", "children", []*net.TCPListener{l}, l.Addr().String()).finish(t, &none)
	if !none {
		t.Error("the program has a child that it did not start")
	}
}

// What cannot be answered is seen, so that it can be said.
func TestUnanswered(t *testing.T) {
	s := start(t, "", "unseen", []*net.TCPListener{listen(t, "tcp4", "127.0.0.1:0")})
	state := s.supervisor(t, seen(WantsNotification))
	if _, ok := state.first(UsesIOUring); !ok {
		t.Errorf("the supervisor has seen:\n%s\nwant %s too", state, UsesIOUring)
	}
	var errno string
	if s.finish(t, &errno); errno != unix.EBUSY.Error() {
		t.Errorf("a second supervisor: %q, want %q", errno, unix.EBUSY.Error())
	}
}

// Without its supervisor a program serves on.
func TestSupervisorIsKilled(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	s := start(t, "", "server", []*net.TCPListener{l}, "tcp4", l.Addr().String())
	state := s.supervisor(t, seen(Serves))
	if err := unix.Kill(state.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ask(t, l.Addr().String())
	s.finish(t, nil)
}

// A program may call with whatever it likes, as often as it likes: its supervisor neither ends nor
// grows.
func TestFlood(t *testing.T) {
	l := listen(t, "tcp4", "127.0.0.1:0")
	s := start(t, "", "flood", []*net.TCPListener{l}, port(l), "10000")
	before := s.supervisor(t, seen(Answered))
	fds := descriptors(t, before.PID)
	for end := time.Now().Add(4 * waitLimit); !strings.Contains(s.out.String(), "flooded"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the flood does not end: %s", s.out.String())
		}
	}
	state := s.supervisor(t, func(State) bool { return true })
	if state.PID != before.PID || len(state.Facts) > 9*maxFacts {
		t.Errorf("supervisor %d has seen %d facts, want %d with at most %d", state.PID, len(state.Facts), before.PID, 9*maxFacts)
	}
	if now := descriptors(t, state.PID); now > fds+4 { // those that a call has at the time
		t.Errorf("%d descriptors, %d before", now, fds)
	}
	field, _ := procField("/proc/"+strconv.Itoa(state.PID)+"/status", "RssAnon:")
	kB, _ := strconv.Atoi(strings.TrimSuffix(string(field), " kB"))
	t.Logf("%d kB after the flood", kB)
	if kB == 0 || kB > mostMemory {
		t.Errorf("supervisor has %d kB, want 1 to %d", kB, mostMemory)
	}
	s.finish(t, nil)
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	all, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// BenchmarkCalls measures what a supervisor adds to bind and listen of a program, and its filter to
// every other system call: each figure with one, and without.
func BenchmarkCalls(b *testing.B) {
	for b.Loop() {
	}
	measure := func(name string, cmd *exec.Cmd) {
		out, err := cmd.Output()
		var figures map[string]float64
		if err == nil {
			err = json.Unmarshal(out, &figures)
		}
		if err != nil {
			b.Fatalf("%s: %v", name, err)
		}
		for unit, value := range figures {
			b.ReportMetric(value, name+"-"+strings.ReplaceAll(unit, " ", "-"))
		}
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const rounds = "2000"
	with := exec.CommandContext(b.Context(), "/proc/self/exe", port(l), rounds)
	with.Env = append(os.Environ(), roleVariable+"=parent", programVariable+"=measure", "LISTEN_FDS=1")
	with.ExtraFiles = []*os.File{f}
	measure("with", with)
	without := exec.CommandContext(b.Context(), "/proc/self/exe", "0", rounds)
	without.Env = append(os.Environ(), roleVariable+"=program", programVariable+"=measure")
	measure("without", without)
}
