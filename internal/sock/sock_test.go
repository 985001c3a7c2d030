package sock

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLocalIsOnThisHost(t *testing.T) {
	for listener, want := range map[string]string{
		"0.0.0.0:80":   "[127.0.0.1:80]",
		"[::]:80":      "[[::1]:80 127.0.0.1:80]",
		"192.0.2.1:80": "[192.0.2.1:80]",
	} {
		if got := Local(netip.MustParseAddrPort(listener)); fmt.Sprint(got) != want {
			t.Errorf("%s is reached at %v, want %s", listener, got, want)
		}
	}
}

// What is bound to an address says so.
func TestNameIsWhatSockaddrWas(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0", "[::ffff:127.0.0.1]:0"} {
		want := netip.MustParseAddrPort(address)
		fd, err := unix.Socket(Family(want.Addr()), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, Sockaddr(want)); err != nil {
			t.Fatalf("bind %s: %v", address, err)
		}
		got, err := Name(fd)
		if err != nil || got.Addr() != want.Addr() || got.Port() == 0 {
			t.Errorf("a socket bound to %s is called %s, %v", want, got, err)
		}
	}
}

func TestNameOfAUnixSocketIsAnError(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(pair[:])
	if name, err := Name(pair[0]); err == nil {
		t.Errorf("it is called %s, want an error", name)
	}
}

// Descriptors are found between control data of other kinds, and duplicates have one cookie.
func TestRightsAndCookie(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll(pair[:])
	if err := unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(pair[0], pair[1]), nil, 0); err != nil {
		t.Fatal(err)
	}
	oob := make([]byte, 256)
	_, n, _, _, err := unix.Recvmsg(pair[1], make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := Rights(oob[:n])
	if err != nil || len(fds) != 2 {
		t.Fatalf("descriptors %v, %v, want two", fds, err)
	}
	defer CloseAll(fds)
	var cookies []uint64
	for _, fd := range append(fds, pair[:]...) {
		cookie, err := Cookie(fd)
		if err != nil {
			t.Fatal(err)
		}
		cookies = append(cookies, cookie)
	}
	if !slices.Equal(cookies[:2], cookies[2:]) || cookies[0] == cookies[1] {
		t.Errorf("duplicates and sockets have the cookies %v", cookies)
	}
	if _, err := Rights(bytes.Repeat([]byte{0xff}, unix.SizeofCmsghdr)); err == nil {
		t.Error("control data that is none has no error")
	}
}
