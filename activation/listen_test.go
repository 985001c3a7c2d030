package activation

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseListen(t *testing.T) {
	ours := func() (uint64, bool, error) { return 9001, true, nil }
	long := strings.Repeat("n", maxName+1)
	tests := []struct {
		name  string
		env   string // KEY=VALUE, separated by "|"
		count int
		names []string
		err   string // substring; with "!" in front also ErrNotPassed
	}{
		{name: "one", env: "LISTEN_PID=42|LISTEN_FDS=1", count: 1},
		{name: "names", env: "LISTEN_PID=42|LISTEN_FDS=3|LISTEN_FDNAMES=http:http:admin.socket", count: 3, names: []string{"http", "http", "admin.socket"}},
		{name: "empty name", env: "LISTEN_PID=42|LISTEN_FDS=2|LISTEN_FDNAMES=:b", count: 2, names: []string{"", "b"}},
		{name: "pidfd id", env: "LISTEN_PID=42|LISTEN_PIDFDID=9001|LISTEN_FDS=1", count: 1},
		{name: "most", env: "LISTEN_PID=42|LISTEN_FDS=1048576", count: 1 << 20},

		{name: "nothing", env: "", err: "!LISTEN_PID is not set"},
		{name: "other process", env: "LISTEN_PID=43|LISTEN_FDS=1", err: "!LISTEN_PID=43 is another process than this one, 42"},
		{name: "reused PID", env: "LISTEN_PID=42|LISTEN_PIDFDID=9002|LISTEN_FDS=1", err: "!LISTEN_PIDFDID=9002 is another process"},
		{name: "no count", env: "LISTEN_PID=42", err: "!LISTEN_FDS is not set"},

		{name: "bad PID", env: "LISTEN_PID=x|LISTEN_FDS=1", err: `parse LISTEN_PID="x": invalid syntax`},
		{name: "empty PID", env: "LISTEN_PID=|LISTEN_FDS=1", err: `parse LISTEN_PID="": invalid syntax`},
		{name: "negative PID", env: "LISTEN_PID=-42|LISTEN_FDS=1", err: "invalid syntax"},
		{name: "signed PID", env: "LISTEN_PID=+42|LISTEN_FDS=1", err: "invalid syntax"},
		{name: "spaced PID", env: "LISTEN_PID= 42|LISTEN_FDS=1", err: "invalid syntax"},
		{name: "bad pidfd id", env: "LISTEN_PID=42|LISTEN_PIDFDID=x|LISTEN_FDS=1", err: `parse LISTEN_PIDFDID="x"`},
		{name: "zero", env: "LISTEN_PID=42|LISTEN_FDS=0", err: "must not be zero"},
		{name: "negative", env: "LISTEN_PID=42|LISTEN_FDS=-1", err: "invalid syntax"},
		{name: "hexadecimal", env: "LISTEN_PID=42|LISTEN_FDS=0x1", err: "invalid syntax"},
		{name: "too many", env: "LISTEN_PID=42|LISTEN_FDS=1048577", err: "more than 1048576"},
		{name: "overflow", env: "LISTEN_PID=42|LISTEN_FDS=4294967297", err: "value out of range"},
		{name: "too few names", env: "LISTEN_PID=42|LISTEN_FDS=2|LISTEN_FDNAMES=a", err: "1 names for LISTEN_FDS=2"},
		{name: "too many names", env: "LISTEN_PID=42|LISTEN_FDS=1|LISTEN_FDNAMES=a:b", err: "2 names for LISTEN_FDS=1"},
		{name: "control character", env: "LISTEN_PID=42|LISTEN_FDS=1|LISTEN_FDNAMES=a\tb", err: "byte 0x09 is not allowed"},
		{name: "long name", env: "LISTEN_PID=42|LISTEN_FDS=1|LISTEN_FDNAMES=" + long, err: "longer than 255 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			env := testEnv(variables(test.env), 0)
			got, err := parseListen(env.lookup, 42, ours)
			if test.err != "" {
				want, absent := strings.CutPrefix(test.err, "!")
				if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrNotPassed) != absent {
					t.Fatalf("got error %v, want one with %q, not passed: %t", err, want, absent)
				}
				return
			}
			if err != nil || got.count != test.count || !slices.Equal(got.names, test.names) {
				t.Fatalf("got %+v, %v, want %d %q", got, err, test.count, test.names)
			}
		})
	}
}

func TestParseListenWithoutPidfs(t *testing.T) {
	env := testEnv(variables("LISTEN_PID=42|LISTEN_PIDFDID=7|LISTEN_FDS=1"), 0)
	if _, err := parseListen(env.lookup, 42, func() (uint64, bool, error) { return 0, false, nil }); err != nil {
		t.Errorf("kernel without ids: %v, want the id ignored", err)
	}
	failed := errors.New("pidfd_open: too many open files")
	if _, err := parseListen(env.lookup, 42, func() (uint64, bool, error) { return 0, false, failed }); !errors.Is(err, failed) {
		t.Errorf("got error %v, want %v", err, failed)
	}
}

func variables(text string) map[string]string {
	vars := map[string]string{}
	for _, assignment := range strings.Split(text, "|") {
		if key, value, ok := strings.Cut(assignment, "="); ok {
			vars[key] = value
		}
	}
	return vars
}

func FuzzParseListen(f *testing.F) {
	f.Add("42", "9001", "2", "a:b", uint8(15))
	f.Add("42", "", "1", "", uint8(5))
	f.Add("43", "1", "1048576", "::::", uint8(13))
	f.Add("+42", "-1", "0x3", "a\nb", uint8(15))
	f.Fuzz(func(t *testing.T, pid, pidfdid, fds, names string, set uint8) {
		vars := map[string]string{}
		for i, v := range []struct{ key, value string }{
			{"LISTEN_PID", pid}, {"LISTEN_PIDFDID", pidfdid}, {"LISTEN_FDS", fds}, {"LISTEN_FDNAMES", names},
		} {
			if set&(1<<i) != 0 {
				vars[v.key] = v.value
			}
		}
		env := testEnv(vars, 0)
		got, err := parseListen(env.lookup, 42, func() (uint64, bool, error) { return 9001, true, nil })
		if err != nil {
			if got.count != 0 && got.names != nil {
				t.Fatalf("got %+v together with error %v", got, err)
			}
			return
		}
		if n, err := strconv.Atoi(fds); err != nil || n != got.count || n < 1 || n > maxDescriptors {
			t.Fatalf("LISTEN_FDS=%q gave %d", fds, got.count)
		}
		if n, err := strconv.Atoi(pid); err != nil || n != 42 {
			t.Fatalf("LISTEN_PID=%q was accepted by process 42", pid)
		}
		if _, named := vars["LISTEN_FDNAMES"]; named != (got.names != nil) {
			t.Fatalf("LISTEN_FDNAMES set: %t, names: %q", named, got.names)
		}
		if got.names != nil && (len(got.names) != got.count || strings.Join(got.names, ":") != names) {
			t.Fatalf("LISTEN_FDNAMES=%q gave %q for %d", names, got.names, got.count)
		}
	})
}

func TestInheritNothing(t *testing.T) {
	passed := inherit(t, testEnv(variables("LISTEN_PID=43|LISTEN_FDS=1"), 0))
	if len(passed.All()) != 0 {
		t.Errorf("got %d descriptors", len(passed.All()))
	}
	for what, ask := range map[string]func() error{
		"Listeners":    func() error { _, err := passed.Listeners("app.socket"); return err },
		"AllListeners": func() error { _, err := passed.AllListeners(); return err },
		"PacketConns":  func() error { _, err := passed.PacketConns("app.socket"); return err },
	} {
		if err := ask(); !errors.Is(err, ErrNotPassed) || !strings.Contains(err.Error(), "LISTEN_PID=43 is another process") {
			t.Errorf("%s: got error %v", what, err)
		}
	}
}

func TestInheritUnsetsOnce(t *testing.T) {
	_, file := listenTCP(t)
	env := place(t, "app.socket", fd(t, file))
	inherit(t, env)
	for _, key := range []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if value, ok := env.lookup(key); ok {
			t.Errorf("%s=%q is still set", key, value)
		}
	}
	if again := inherit(t, env); len(again.All()) != 0 {
		t.Errorf("second call got %d descriptors", len(again.All()))
	}

	env = testEnv(variables("LISTEN_PID=42|LISTEN_FDS=nonsense"), 0)
	if _, err := env.Inherit(); err == nil {
		t.Error("nonsense was accepted")
	}
	if _, ok := env.lookup("LISTEN_FDS"); ok {
		t.Error("LISTEN_FDS is still set after an error")
	}
}

func TestInheritRefusesWhatIsNotPassed(t *testing.T) {
	noLeaks(t)
	env := testEnv(variables("LISTEN_PID=42|LISTEN_FDS=1"), 900)
	if _, err := env.Inherit(); !errors.Is(err, unix.EBADF) {
		t.Errorf("closed descriptor: got error %v, want EBADF", err)
	}

	null, err := os.Open(os.DevNull) // close-on-exec, as all that Go opens
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	env = testEnv(variables("LISTEN_PID=42|LISTEN_FDS=1"), fd(t, null))
	if _, err := env.Inherit(); err == nil || !strings.Contains(err.Error(), "close-on-exec") {
		t.Errorf("descriptor of our own: got error %v", err)
	}
}

// childReport prints what a service sees of its descriptors, and that its own children see nothing.
func childReport() int {
	passed, err := Inherit()
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	for _, key := range []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if value, ok := os.LookupEnv(key); ok {
			fmt.Printf("%s=%s\n", key, value)
		}
	}
	for _, d := range passed.All() {
		flags, _ := unix.FcntlInt(uintptr(d.FD()), unix.F_GETFD, 0)
		mode, _ := unix.FcntlInt(uintptr(d.FD()), unix.F_GETFL, 0)
		fmt.Printf("%d %s: %s cloexec=%d nonblock=%t\n", d.FD(), d.Name(), d.Kind(), flags&unix.FD_CLOEXEC, mode&unix.O_NONBLOCK != 0)
	}
	fmt.Println("all:", len(passed.All()), passed.Close())
	return 0
}

func TestInheritInChild(t *testing.T) {
	noLeaks(t)
	stream := rawSocket(t, unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	datagram := rawSocket(t, unix.AF_UNIX, unix.SOCK_DGRAM, &unix.SockaddrUnix{Name: "@activation-test-" + strconv.Itoa(os.Getpid())})
	memfd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	// Duplicates, since os.File closes its own, and ExtraFiles wants files.
	var files []*os.File
	for _, fd := range []int{stream, datagram, memfd} {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(dup), "passed")
		defer file.Close()
		files = append(files, file)
	}
	unix.Close(memfd)

	tests := []struct {
		name string
		env  []string
		want []string
	}{
		{"named", []string{"LISTEN_FDNAMES=http:log:state", "LISTEN_PIDFDID=own"}, []string{
			"3 http: stream listener cloexec=1 nonblock=false",
			"4 log: datagram socket cloexec=1 nonblock=false",
			"5 state: memfd cloexec=1 nonblock=false",
			"all: 3 <nil>"}},
		{"unnamed", nil, []string{
			"3 unknown: stream listener cloexec=1 nonblock=false",
			"4 unknown: datagram socket cloexec=1 nonblock=false",
			"5 unknown: memfd cloexec=1 nonblock=false",
			"all: 3 <nil>"}},
		{"counted wrong", []string{"LISTEN_FDNAMES=http"}, []string{
			`error: parse LISTEN_FDNAMES="http": 1 names for LISTEN_FDS=3`}},
	}
	if _, known, err := ownPidfdID(); known && err == nil {
		tests = append(tests, struct {
			name string
			env  []string
			want []string
		}{"PID reused", []string{"LISTEN_PIDFDID=1"}, []string{"all: 0 <nil>"}})
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := startChild(t, "report", files, test.env...)
			var got []string
			for c.stdout.Scan() {
				got = append(got, c.stdout.Text())
			}
			c.Wait()
			if !slices.Equal(got, test.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
	if nonblocking(t, stream) || nonblocking(t, datagram) {
		t.Error("O_NONBLOCK of the shared sockets was changed")
	}
}
