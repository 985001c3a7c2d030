package explain

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLookAndHolderSeeRealSockets(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	own, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	path := filepath.Join(t.TempDir(), "a b")
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	seen := make(map[Socket]bool)
	for _, s := range Look(os.Getpid(), []string{own.Addr().String()}) {
		s.inode = 0
		seen[s] = true
	}
	for _, want := range []Socket{{Net: "tcp", Address: tcp.Addr().String()}, {Net: "udp", Address: udp.LocalAddr().String()}, {Net: "unix", Address: path}} {
		if !seen[want] {
			t.Errorf("%+v is missing in %v", want, seen)
		}
	}
	if seen[Socket{Net: "tcp", Address: own.Addr().String()}] {
		t.Error("the app's own listener is named")
	}
	port := tcp.Addr().(*net.TCPAddr).Port
	if h, ok := FindHolder(port); !ok || h.PID != os.Getpid() {
		t.Errorf("holder of port %d is %v, %v; want this process", port, h, ok)
	}
	tcp.Close()
	if h, ok := FindHolder(port); ok {
		t.Errorf("holder of a port that is free: %v", h)
	}
}

// A program may open as many descriptors as it likes: root reads the first ones of all its
// processes.
func TestLookIsBounded(t *testing.T) {
	proc := t.TempDir()
	for _, pid := range []string{"7", "8"} {
		dir := filepath.Join(proc, pid, "fd")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 30 {
			if err := os.Symlink(fmt.Sprintf("socket:[%s%02d]", pid, i), filepath.Join(dir, strconv.Itoa(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := budget(40)
	if first, second := left.socketsOf(proc, "7"), left.socketsOf(proc, "8"); len(first) != 30 || len(second) != 10 || left != 0 {
		t.Errorf("%d and %d sockets seen, %d left; want 30, 10 and 0", len(first), len(second), left)
	}
}

// A process that PID 1 has forked has its sockets for a moment, and is not who holds the port.
func TestForkOfInitHoldsNothing(t *testing.T) {
	proc := t.TempDir()
	const manager, inode, port = "/usr/lib/systemd/systemd", 4711, 8125
	files := map[string]string{"self/net/tcp": fmt.Sprintf("head\n   0: 0100007F:%04X 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 %d 1 0000000000000000 100 0 0 10 0\n", port, inode)}
	for pid, p := range map[string]struct{ exe, comm, cmdline string }{
		"1": {manager, "systemd", "/sbin/init"}, "20": {manager, "systemd", "/sbin/init"}, "21": {manager, "(python3)", "(python3)"},
	} {
		files[pid+"/comm"], files[pid+"/cmdline"] = p.comm+"\n", p.cmdline+"\x00"
		for link, target := range map[string]string{"exe": p.exe, "fd/3": fmt.Sprintf("socket:[%d]", inode)} {
			if err := errors.Join(os.MkdirAll(filepath.Join(proc, pid, "fd"), 0o755), os.Symlink(target, filepath.Join(proc, pid, link))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, text := range files {
		path := filepath.Join(proc, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if h, ok := findHolder(proc, port); !ok || h.PID != 1 {
		t.Errorf("holder = %+v, %t; want PID 1", h, ok)
	}
	// Between two questions PID 1 names it: its comm first, then its command line.
	comm, cmdline := filepath.Join(proc, "20/comm"), filepath.Join(proc, "20/cmdline")
	named := whenRead(t, cmdline, "(sd-listen)\x00", func() error { return os.WriteFile(comm, []byte("(sd-listen)\n"), 0o600) })
	if h, ok := findHolder(proc, port); !ok || h.PID != 1 {
		t.Errorf("holder = %+v, %t; want PID 1", h, ok)
	}
	named()
	// It becomes its program between the two looks, which closes them, or has ended.
	open := filepath.Join(proc, "21/fd/3")
	executed := whenRead(t, filepath.Join(proc, "21/comm"), "python3\n", func() error { return os.Remove(open) })
	if h, ok := findHolder(proc, port); !ok || h.PID != 1 {
		t.Errorf("holder = %+v, %t; want PID 1", h, ok)
	}
	executed()
	if err := errors.Join(os.Symlink(fmt.Sprintf("socket:[%d]", inode), open), os.Remove(filepath.Join(proc, "21/exe")), os.Remove(filepath.Join(proc, "21/comm"))); err != nil {
		t.Fatal(err)
	}
	if h, ok := findHolder(proc, port); !ok || h.PID != 1 {
		t.Errorf("holder = %+v, %t; want PID 1", h, ok)
	}
	// The manager of a user that has the socket is who holds it.
	if err := errors.Join(os.WriteFile(filepath.Join(proc, "20/comm"), []byte("systemd\n"), 0o600), os.WriteFile(cmdline, []byte(manager+"\x00--user\x00"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if h, ok := findHolder(proc, port); !ok || h.PID != 20 {
		t.Errorf("holder = %+v, %t; want process 20", h, ok)
	}
}

// whenRead makes a change when somebody reads the file at path, who then gets text. made waits until
// that has happened, and leaves a file with the text.
func whenRead(t *testing.T, path, text string, change func() error) (made func()) {
	t.Helper()
	if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0) // opens when somebody reads
		if err != nil {
			done <- err
			return
		}
		err = change()
		_, failed := f.WriteString(text)
		done <- errors.Join(err, failed, f.Close())
	}()
	return func() {
		t.Helper()
		select {
		case err := <-done:
			if err := errors.Join(err, os.Remove(path), os.WriteFile(path, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("nobody has read %s", path)
		}
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add("   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0")
	f.Add("0000000000000000: 00000002 00000000 00010000 0001 01 4242 /run/x y.sock")
	f.Fuzz(func(t *testing.T, line string) {
		for _, network := range []string{"tcp", "udp"} {
			if s, ok := parseInet(network, line); ok && s.port() < 0 {
				t.Errorf("%q: port %d", line, s.port())
			}
		}
		parseUnix("unix", line)
	})
}
