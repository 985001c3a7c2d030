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

	"github.com/unitgen/unitgen/internal/listenfds"
)

func variables(text string) map[string]string {
	vars := map[string]string{}
	for _, assignment := range strings.Split(text, "|") {
		if key, value, ok := strings.Cut(assignment, "="); ok {
			vars[key] = value
		}
	}
	return vars
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
	if _, known, err := listenfds.OwnPidfdID(); known && err == nil {
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
