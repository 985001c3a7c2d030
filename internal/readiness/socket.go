package readiness

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
)

// socket is a TCP socket that is bound and not yet connected: its port is known before its SYN.
type socket struct {
	fd   int
	to   netip.AddrPort
	port uint16
}

// bind makes a socket that can connect to an address of this host, in the network namespace of the
// calling thread.
func bind(to netip.AddrPort) (*socket, error) {
	any := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	fd, err := unix.Socket(sock.Family(any), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd, to: to}
	err = unix.Bind(fd, sock.Sockaddr(netip.AddrPortFrom(any, 0)))
	if err == unix.EPERM {
		return s, s.choosePort()
	}
	if err != nil {
		s.close()
		return nil, os.NewSyscallError("bind", err)
	}
	name, err := sock.Name(fd)
	if err != nil {
		s.close()
		return nil, err
	}
	s.port = name.Port()
	return s, nil
}

// choosePort makes connect(2) use a port that is known beforehand, in a unit that may not bind
// (SocketBindDeny=). If the port is in use, connect fails and the caller tries another port. It
// needs Linux 6.3.
func (s *socket) choosePort() error {
	const lowest, ports = 32768, 28232 // ip_local_port_range as the kernel has it
	s.port = uint16(lowest + rand.IntN(ports))
	err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_LOCAL_PORT_RANGE, int(s.port)<<16|int(s.port))
	if err != nil {
		s.close()
		return fmt.Errorf("choose port of a probe, as SocketBindDeny= forbids bind(2): %w", os.NewSyscallError("setsockopt IP_LOCAL_PORT_RANGE", err))
	}
	return nil
}

func (s *socket) close() { unix.Close(s.fd) }

// connect consumes the socket. The peer is this host, so that it blocks no longer than the kernel
// takes.
func (s *socket) connect() (net.Conn, error) {
	defer s.close()
	err := error(unix.EINTR)
	for err == unix.EINTR {
		err = unix.Connect(s.fd, sock.Sockaddr(s.to))
	}
	if err != nil && err != unix.EISCONN {
		return nil, fmt.Errorf("connect to %s: %w", s.to, err)
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(fd), "probe")
	defer file.Close()
	return net.FileConn(file)
}

// get makes one request on conn, which it closes, and wants an answer of 2xx or 3xx, of which it reads
// the head. Package net/http would do the same, and its initialisation would be a fifth of what this
// process costs, for every instance of every app.
func get(ctx context.Context, conn net.Conn, path string) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	target, err := url.Parse("http://localhost" + path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: unitgen-ready\r\nConnection: close\r\n\r\n", target.RequestURI())
	if err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	answer := textproto.NewReader(bufio.NewReader(io.LimitReader(conn, longestHead)))
	line, err := answer.ReadLine()
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	code, status, err := parseStatus(line)
	if err != nil {
		return err
	}
	// A program that is cut off while it writes them may complain, or end.
	if _, err := answer.ReadMIMEHeader(); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if code < 200 || code > 399 {
		return fmt.Errorf("answer is %s", status)
	}
	return nil
}

// longestHead is how long the head of an answer may be, in bytes.
const longestHead = 64 << 10

// parseStatus takes a status line (RFC 9112, section 4) apart: the code, and the text from it on.
func parseStatus(line string) (code int, status string, err error) {
	version, status, _ := strings.Cut(line, " ")
	digits, _, _ := strings.Cut(status, " ")
	code, err = strconv.Atoi(digits)
	if !strings.HasPrefix(version, "HTTP/1.") || err != nil || len(digits) != 3 || code < 0 {
		return 0, "", fmt.Errorf("answer is not HTTP: %q", line)
	}
	return code, status, nil
}
