package bindnotify

import (
	"golang.org/x/sys/unix"
)

// option is one of a listener that the connections it accepts begin with (sk_clone_lock of the
// kernel copies the socket), or that decides when it has one to accept.
type option struct{ level, name int }

// inherited are the options that a program may have set before bind(2), without those of the group,
// of routing and of packet filters, which belong to the app.
var inherited = []option{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.SOL_SOCKET, unix.SO_RCVBUF},
	{unix.SOL_SOCKET, unix.SO_SNDBUF},
	{unix.SOL_SOCKET, unix.SO_RCVLOWAT},
	{unix.SOL_SOCKET, unix.SO_OOBINLINE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY},
	{unix.IPPROTO_TCP, unix.TCP_CORK},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
	{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
	{unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
	{unix.IPPROTO_TCP, unix.TCP_LINGER2},
	{unix.IPPROTO_IP, unix.IP_TOS},
	{unix.IPPROTO_IP, unix.IP_TTL},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS},
}

// copyOptions copies to a listener the options that the program has set on its socket: those that
// differ from a new socket of its family. Other options stay as the socket unit sets them. Options
// that one of the two sockets does not have are skipped. The shim restores the listener when the
// program has ended.
func copyOptions(from, to socket, domain int) {
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return
	}
	fresh := socket(fd)
	defer fresh.close()
	for _, o := range inherited {
		set, ok := from.option(o.level, o.name)
		if initial, known := fresh.option(o.level, o.name); !ok || !known || set == initial {
			continue
		}
		if o.level == unix.SOL_SOCKET && (o.name == unix.SO_RCVBUF || o.name == unix.SO_SNDBUF) {
			set /= 2 // the kernel doubles what it is told (socket(7))
		}
		_ = unix.SetsockoptInt(int(to), o.level, o.name, set)
	}
	if l, err := unix.GetsockoptLinger(int(from), unix.SOL_SOCKET, unix.SO_LINGER); err == nil && l.Onoff != 0 {
		_ = unix.SetsockoptLinger(int(to), unix.SOL_SOCKET, unix.SO_LINGER, l)
	}
	for _, name := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} { // some programs bound accept(2) by it
		if t, err := unix.GetsockoptTimeval(int(from), unix.SOL_SOCKET, name); err == nil && *t != (unix.Timeval{}) {
			_ = unix.SetsockoptTimeval(int(to), unix.SOL_SOCKET, name, t)
		}
	}
}
