package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestKinds(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	loopback := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	path := func(name string) unix.Sockaddr { return &unix.SockaddrUnix{Name: filepath.Join(dir, name)} }
	must := func(fd int, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	pair := func(sotype int) int {
		fds, err := unix.Socketpair(unix.AF_UNIX, sotype|unix.SOCK_CLOEXEC, 0)
		t.Cleanup(func() { unix.Close(fds[1]) })
		return must(fds[0], err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	must(pipe[1], nil)
	open := func(name string, flags int) int {
		return must(unix.Open(name, flags|unix.O_CLOEXEC, 0o600))
	}
	unbound := must(unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))

	tests := []struct {
		name string
		fd   int
		kind Kind
		addr string // network and prefix of the address
	}{
		{"tcp", rawSocket(t, unix.AF_INET, unix.SOCK_STREAM, loopback), StreamListener, "tcp 127.0.0.1:"},
		{"tcp6", rawSocket(t, unix.AF_INET6, unix.SOCK_STREAM, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}), StreamListener, "tcp [::1]:"},
		{"udp", rawSocket(t, unix.AF_INET, unix.SOCK_DGRAM, loopback), Datagram, "udp 127.0.0.1:"},
		{"unix", rawSocket(t, unix.AF_UNIX, unix.SOCK_STREAM, path("u")), StreamListener, "unix " + dir + "/u"},
		{"seqpacket", rawSocket(t, unix.AF_UNIX, unix.SOCK_SEQPACKET, path("s")), SeqpacketListener, "unixpacket " + dir + "/s"},
		{"unixgram", rawSocket(t, unix.AF_UNIX, unix.SOCK_DGRAM, path("d")), Datagram, "unixgram " + dir + "/d"},
		{"connected", pair(unix.SOCK_STREAM), StreamConnection, "unix "},
		{"connected seqpacket", pair(unix.SOCK_SEQPACKET), SeqpacketConnection, "unixpacket "},
		{"unconnected", unbound, OtherSocket, "tcp [::]:0"},
		{"netlink", rawSocket(t, unix.AF_NETLINK, unix.SOCK_RAW, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}), Netlink, ""},
		{"fifo", must(pipe[0], nil), FIFO, ""},
		{"memfd", must(unix.MemfdCreate("m", unix.MFD_CLOEXEC)), Memfd, ""},
		{"file", open(filepath.Join(dir, "file"), unix.O_CREAT|unix.O_RDWR), RegularFile, ""},
		{"device", open(os.DevNull, unix.O_RDWR), Device, ""},
		{"directory", open(dir, unix.O_RDONLY), Directory, ""},
		{"epoll", must(unix.EpollCreate1(unix.EPOLL_CLOEXEC)), Other, ""},
		{"pidfd", must(unix.PidfdOpen(os.Getpid(), 0)), Other, ""},
	}
	var fds []int
	var names []string
	for _, test := range tests {
		fds, names = append(fds, test.fd), append(names, test.name)
	}
	passed := inherit(t, place(t, strings.Join(names, ":"), fds...))
	for i, d := range passed.All() {
		var addr string
		if d.Addr() != nil {
			addr = d.Addr().Network() + " " + d.Addr().String()
		}
		if d.Name() != tests[i].name || d.Kind() != tests[i].kind || !strings.HasPrefix(addr, tests[i].addr) {
			t.Errorf("%s: got %q, a %s, %q; want a %s, %q", tests[i].name, d.Name(), d.Kind(), addr, tests[i].kind, tests[i].addr)
		}
	}
}

func TestListenersByName(t *testing.T) {
	noLeaks(t)
	first, _ := listenTCP(t)
	second, _ := listenTCP(t)
	admin, _ := listenTCP(t)
	memfd, err := unix.MemfdCreate("m", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memfd)
	passed := inherit(t, place(t, "http:admin:http:state", fd(t, first), fd(t, admin), fd(t, second), memfd))

	listeners, err := passed.Listeners("http")
	if err != nil {
		t.Fatal(err)
	}
	if len(listeners) != 2 || listeners[0].Addr().String() != first.Addr().String() || listeners[1].Addr().String() != second.Addr().String() {
		t.Errorf("got %v", listeners)
	}
	exchange(t, listeners[0])
	for _, l := range listeners {
		l.Close()
	}
	if fd := passed.Named("http")[0].FD(); fd != -1 {
		t.Errorf("descriptor after Listeners is %d, want -1", fd)
	}
	if _, err := passed.Listeners("http"); err == nil || !strings.Contains(err.Error(), "already taken") {
		t.Errorf("second time: got error %v", err)
	}
	if _, err := passed.Listeners("https"); !errors.Is(err, ErrNotPassed) || !strings.Contains(err.Error(), `"state" (memfd)`) {
		t.Errorf("unknown name: got error %v", err)
	}
	if _, err := passed.Listeners("state"); err == nil || !strings.Contains(err.Error(), "is a memfd") {
		t.Errorf("memfd: got error %v", err)
	}

	rest, err := passed.AllListeners()
	if err != nil || len(rest) != 1 || rest[0].Addr().String() != admin.Addr().String() {
		t.Fatalf("AllListeners: got %v, %v, want the one not taken", rest, err)
	}
	rest[0].Close()
	if _, err := passed.AllListeners(); !errors.Is(err, ErrNotPassed) {
		t.Errorf("AllListeners with none left: got error %v", err)
	}
	file, err := passed.Named("state")[0].File()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("stored"); err != nil {
		t.Error(err)
	}
	file.Close()
}

// exchange proves that l accepts.
func exchange(t *testing.T, l net.Listener) {
	t.Helper()
	client, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := server.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestListenersAreTakenTogetherOrNotAtAll(t *testing.T) {
	noLeaks(t)
	l, _ := listenTCP(t)
	udp := rawSocket(t, unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{})
	passed := inherit(t, place(t, "http:http", fd(t, l), udp))
	if _, err := passed.Listeners("http"); err == nil || !strings.Contains(err.Error(), "is a datagram socket") {
		t.Fatalf("got error %v", err)
	}
	for _, d := range passed.All() {
		if d.FD() < 0 {
			t.Errorf("%s %q was taken by the call that failed", d.Kind(), d.Name())
		}
	}
	single, err := passed.All()[0].Listener()
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, single)
	single.Close()
}

func TestTakeChangesNothing(t *testing.T) {
	noLeaks(t)
	shared := rawSocket(t, unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	passed := inherit(t, place(t, "http", shared))
	d := passed.All()[0]
	number := d.FD()
	taken, err := d.Take()
	if err != nil || taken != number {
		t.Fatalf("got %d, %v, want %d", taken, err, number)
	}
	if nonblocking(t, shared) {
		t.Error("Take changed O_NONBLOCK of the shared description")
	}
	if _, err := d.Take(); err == nil {
		t.Error("taken twice")
	}
	passed.Close()
	if _, err := unix.FcntlInt(uintptr(taken), unix.F_GETFD, 0); err != nil {
		t.Errorf("Close closed what was taken: %v", err)
	}
	unix.Close(taken)
}

func TestFileLeavesBlockingMode(t *testing.T) {
	noLeaks(t)
	shared := rawSocket(t, unix.AF_INET, unix.SOCK_STREAM, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	for _, mode := range []bool{false, true} {
		if err := unix.SetNonblock(shared, mode); err != nil {
			t.Fatal(err)
		}
		file, err := inherit(t, place(t, "http", shared)).All()[0].File()
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		if got := nonblocking(t, shared); got != mode {
			t.Errorf("O_NONBLOCK is %t after File, was %t", got, mode)
		}
	}
}

func TestPacketConnAndConn(t *testing.T) {
	noLeaks(t)
	udp := rawSocket(t, unix.AF_INET, unix.SOCK_DGRAM, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	passed := inherit(t, place(t, "dns:connection", udp, pair[0]))

	if _, err := passed.PacketConns("connection"); err == nil || !strings.Contains(err.Error(), "is a stream connection") {
		t.Errorf("PacketConns of a connection: got error %v", err)
	}
	conns, err := passed.PacketConns("dns")
	if err != nil {
		t.Fatal(err)
	}
	defer conns[0].Close()
	if _, err := conns[0].WriteTo([]byte("x"), conns[0].LocalAddr()); err != nil {
		t.Error(err)
	}
	if n, _, err := conns[0].ReadFrom(make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("ReadFrom: got %d, %v", n, err)
	}

	d := passed.Named("connection")[0]
	if _, err := d.Listener(); err == nil {
		t.Error("a connection became a listener")
	}
	conn, err := d.Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "hello")
	buf := make([]byte, 8)
	if n, err := unix.Read(pair[1], buf); string(buf[:n]) != "hello" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
}

func TestListenerKeepsSocketPath(t *testing.T) {
	noLeaks(t)
	path := filepath.Join(t.TempDir(), "app.sock")
	shared := rawSocket(t, unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: path})
	listeners, err := inherit(t, place(t, "app.socket", shared)).Listeners("app.socket")
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, listeners[0])
	listeners[0].Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the path of PID 1's socket is gone: %v", err)
	}
}
