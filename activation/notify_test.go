package activation

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// manager is the other end of NOTIFY_SOCKET.
type manager struct {
	*net.UnixConn
	address string
}

func newManager(t *testing.T, address string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	return &manager{conn, address}
}

// receive returns one message and the descriptors that came with it, which the caller closes.
func (m *manager) receive(t *testing.T) (string, []int) {
	t.Helper()
	buf, rights := make([]byte, maxMessage+1), make([]byte, unix.CmsgSpace(4*maxRights))
	n, oobn, flags, _, err := m.ReadMsgUnix(buf, rights)
	if err != nil {
		t.Error(err)
		return "", nil
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		t.Errorf("message was truncated")
	}
	messages, err := unix.ParseSocketControlMessage(rights[:oobn])
	if err != nil {
		t.Error(err)
	}
	var fds []int
	for _, message := range messages {
		got, err := unix.ParseUnixRights(&message)
		if err != nil {
			t.Error(err)
		}
		fds = append(fds, got...)
	}
	return string(buf[:n]), fds
}

func (m *manager) notifier(t *testing.T, vars string) *Notifier {
	t.Helper()
	n, err := testEnv(variables("NOTIFY_SOCKET="+m.address+"|"+vars), 0).NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func abstract(t *testing.T) string {
	return "@activation-" + strconv.Itoa(os.Getpid()) + "-" + strings.ReplaceAll(t.Name(), "/", "-")
}

func TestMessages(t *testing.T) {
	for _, address := range []string{abstract(t), filepath.Join(t.TempDir(), "notify")} {
		t.Run(address[:1], func(t *testing.T) {
			noLeaks(t)
			m := newManager(t, address)
			n := m.notifier(t, "")
			tests := []struct {
				send func() error
				want string
			}{
				{n.Ready, "READY=1"},
				{n.Stopping, "STOPPING=1"},
				{n.Watchdog, "WATCHDOG=1"},
				{func() error { return n.Status("rollout 2/4") }, "STATUS=rollout 2/4"},
				{func() error { return n.Errno(unix.EADDRINUSE) }, "ERRNO=98"},
				{func() error { return n.MainPID(4711) }, "MAINPID=4711"},
				{func() error { return n.ExtendTimeout(1500 * time.Millisecond) }, "EXTEND_TIMEOUT_USEC=1500000"},
				{func() error { return n.RemoveStored("state") }, "FDSTOREREMOVE=1\nFDNAME=state"},
				{func() error { return n.Send("READY=1", "STATUS=up") }, "READY=1\nSTATUS=up"},
			}
			for _, test := range tests {
				if err := test.send(); err != nil {
					t.Fatal(err)
				}
				if got, _ := m.receive(t); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
			}
		})
	}
}

func TestReloading(t *testing.T) {
	noLeaks(t)
	m := newManager(t, abstract(t))
	now := func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		return ts.Nano() / 1000
	}
	before := now()
	if err := m.notifier(t, "").Reloading(); err != nil {
		t.Fatal(err)
	}
	got, _ := m.receive(t)
	text, ok := strings.CutPrefix(got, "RELOADING=1\nMONOTONIC_USEC=")
	usec, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil || usec < before || usec > now() {
		t.Errorf("got %q", got)
	}
}

func TestStatusIsOneCleanLine(t *testing.T) {
	long := strings.Repeat("ü", maxMessage)
	for _, test := range []struct{ text, want string }{
		{"4/4 up\nREADY=1", "4/4 up READY=1"},
		{"a\r\n\tb\x00\x7f", "a   b  "},
		{"caf\xe9", "caf\ufffd"},
		{"", ""},
		{long, long[:(maxMessage-len("STATUS="))/2*2]},
	} {
		got := cleanStatus(test.text)
		if got != test.want {
			t.Errorf("cleanStatus(%.40q) = %.40q (%d bytes), want %.40q (%d)", test.text, got, len(got), test.want, len(test.want))
		}
	}
}

func FuzzCleanStatus(f *testing.F) {
	f.Add("a\nb")
	f.Add(strings.Repeat("€", maxMessage))
	f.Add(strings.Repeat("\xff", maxMessage))
	f.Fuzz(func(t *testing.T, text string) {
		got := "STATUS=" + cleanStatus(text)
		if len(got) > maxMessage || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\x00") {
			t.Errorf("%.80q became %.80q", text, got)
		}
	})
}

func TestNoManager(t *testing.T) {
	noLeaks(t)
	made, err := testEnv(variables("NOTIFY_SOCKET="), 0).NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*Notifier{"nil": nil, "zero": {}, "without NOTIFY_SOCKET": made} {
		err := errors.Join(n.Ready(), n.Reloading(), n.Stopping(), n.Status("x"), n.Watchdog(), n.StoreFiles("x", 0),
			n.Barrier(context.Background()), n.Close())
		if err != nil || n.Enabled() || n.WatchdogInterval() != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if allocs := testing.AllocsPerRun(100, func() { made.Ready(); made.Watchdog() }); allocs != 0 {
		t.Errorf("a message to nobody allocates %v times", allocs)
	}
}

func TestNewNotifierErrors(t *testing.T) {
	noLeaks(t)
	for vars, want := range map[string]string{
		"NOTIFY_SOCKET=vsock:2:1234":       "neither a path",
		"NOTIFY_SOCKET=notify":             "neither a path",
		"NOTIFY_SOCKET=@":                  "neither a path",
		"NOTIFY_SOCKET=/nonexistent/x":     "connect: no such file or directory",
		"NOTIFY_SOCKET=/dev/null":          "connect: connection refused",
		"NOTIFY_SOCKET=/" + long(200):      "connect: invalid argument",
		"WATCHDOG_USEC=soon":               `parse WATCHDOG_USEC="soon": invalid syntax`,
		"WATCHDOG_USEC=0":                  "must not be zero",
		"WATCHDOG_USEC=18446744073709":     "",
		"WATCHDOG_USEC=18446744073709551":  "longer than 292 years",
		"WATCHDOG_USEC=1000|WATCHDOG_PID=": `parse WATCHDOG_PID=""`,
	} {
		n, err := testEnv(variables(vars), 0).NewNotifier()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got error %v, want %q", vars, err, want)
		}
		n.Close()
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func TestRefusedMessages(t *testing.T) {
	noLeaks(t)
	n := newManager(t, abstract(t)).notifier(t, "")
	for name, err := range map[string]error{
		"two lines":      n.Send("STATUS=a\nREADY=1"),
		"no assignment":  n.Send("READY"),
		"no key":         n.Send("=1"),
		"nothing":        n.Send(),
		"long":           n.Send("X=" + long(maxMessage)),
		"no time":        n.ExtendTimeout(0),
		"colon":          n.StoreFiles("a:b", 0),
		"line break":     n.RemoveStored("a\nREADY=1"),
		"no name":        n.StoreFiles("", 0),
		"no descriptors": n.StoreFiles("a"),
		"bad descriptor": n.StoreFiles("a", -1),
	} {
		if err == nil {
			t.Errorf("%s: sent", name)
		}
	}
}

func TestSendAfterClose(t *testing.T) {
	noLeaks(t)
	n := newManager(t, abstract(t)).notifier(t, "")
	if err := errors.Join(n.Close(), n.Close()); err != nil {
		t.Fatal(err)
	}
	if err := n.Ready(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got error %v, want net.ErrClosed", err)
	}
}

func TestSendToStuckManagerEnds(t *testing.T) {
	noLeaks(t)
	n := newManager(t, abstract(t)).notifier(t, "")
	short := unix.NsecToTimeval(int64(10 * time.Millisecond))
	if err := unix.SetsockoptTimeval(n.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &short); err != nil {
		t.Fatal(err)
	}
	for range 100_000 { // net.unix.max_dgram_qlen messages fit, or what the send buffer holds
		if err := n.Ready(); err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				t.Errorf("got error %v, want EAGAIN", err)
			}
			return
		}
	}
	t.Error("the queue of a manager that does not read never got full")
}

func TestStoreFiles(t *testing.T) {
	noLeaks(t)
	m := newManager(t, abstract(t))
	n := m.notifier(t, "")
	memfd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memfd)

	many := slices.Repeat([]int{memfd}, maxRights+47)
	for _, test := range []struct {
		store   func(string, ...int) error
		fds     []int
		message string
		counts  []int
	}{
		{n.StoreFiles, []int{memfd}, "FDSTORE=1\nFDNAME=state", []int{1}},
		{n.StoreFilesUnpolled, []int{memfd, memfd}, "FDSTORE=1\nFDPOLL=0\nFDNAME=state", []int{2}},
		{n.StoreFiles, many, "FDSTORE=1\nFDNAME=state", []int{maxRights, 47}},
	} {
		if err := test.store("state", test.fds...); err != nil {
			t.Fatal(err)
		}
		for _, count := range test.counts {
			message, fds := m.receive(t)
			if message != test.message || len(fds) != count {
				t.Errorf("got %q with %d descriptors, want %q with %d", message, len(fds), test.message, count)
			}
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}
}

func TestBarrier(t *testing.T) {
	noLeaks(t)
	m := newManager(t, abstract(t))
	n := m.notifier(t, "")
	if err := n.Ready(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.Barrier(t.Context()) }()
	if message, _ := m.receive(t); message != "READY=1" {
		t.Errorf("got %q", message)
	}
	message, fds := m.receive(t)
	if message != "BARRIER=1" || len(fds) != 1 {
		t.Fatalf("got %q with %d descriptors", message, len(fds))
	}
	select {
	case err := <-done:
		t.Errorf("returned before the manager was done: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	unix.Close(fds[0])
	if err := <-done; err != nil {
		t.Error(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := n.Barrier(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want a deadline exceeded", err)
	}
	_, fds = m.receive(t)
	unix.Close(fds[0])
}

func TestWatchdogInterval(t *testing.T) {
	for vars, want := range map[string]time.Duration{
		"":                                      0,
		"WATCHDOG_USEC=3000000":                 3 * time.Second,
		"WATCHDOG_USEC=3000000|WATCHDOG_PID=42": 3 * time.Second,
		"WATCHDOG_USEC=3000000|WATCHDOG_PID=1":  0,
	} {
		n, err := testEnv(variables(vars), 0).NewNotifier()
		if err != nil || n.WatchdogInterval() != want {
			t.Errorf("%s: got %s, %v, want %s", vars, n.WatchdogInterval(), err, want)
		}
	}
}
