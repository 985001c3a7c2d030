package sockdiag

import (
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnixQueue(t *testing.T) {
	fd, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var stat unix.Stat_t
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &stat) })
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want int) {
		t.Helper()
		if n, err := c.UnixQueue(uint32(stat.Ino)); n != want || err != nil {
			t.Errorf("queue = %d, %v, want %d", n, err, want)
		}
	}
	expect(0)
	for n := 1; n <= 3; n++ {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		expect(n)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	expect(2)
	if _, err := c.UnixQueue(0); err == nil {
		t.Error("queue of a socket that is none: no error")
	}
}

func TestUnixQueueAnswers(t *testing.T) {
	header := func(kind uint16, body ...byte) []byte {
		b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
		binary.NativeEndian.PutUint16(b[4:], kind)
		return append(b, body...)
	}
	message := make([]byte, unixMessageLen)
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{header(unix.NLMSG_ERROR), "malformed"},
		{header(unix.NLMSG_ERROR, binary.NativeEndian.AppendUint32(nil, uint32(0xfffffffe))...), "no such file"},
		{header(99, message...), "malformed"},
		{header(sockDiagByFamily, 1, 2), "malformed"},
		{header(sockDiagByFamily, message...), "does not report"},
		{header(sockDiagByFamily, append(message, 2, 0, 4, 0)...), "malformed"},
		{header(sockDiagByFamily, append(message, 99, 0, 4, 0)...), "malformed"},
	} {
		if n, err := parseUnixQueue(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %d, %v, want an error with %q", c.b, n, err, c.want)
		}
	}
}

func FuzzUnixQueue(f *testing.F) {
	f.Add(make([]byte, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= unix.SizeofNlMsghdr {
			parseUnixQueue(b)
		}
	})
}
