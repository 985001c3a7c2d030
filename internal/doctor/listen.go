package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/sock"
)

// CheckSocketPaths refuses new addresses of a plan that are paths of unix sockets and that
// something else has.
func CheckSocketPaths(root string, p *plan.Plan) error {
	var found []error
	for _, l := range p.NewListeners() {
		found = append(found, socketPath(root, "--listen=", l))
	}
	for _, b := range p.NewBeside() {
		found = append(found, socketPath(root, b.Option, b.Listen))
	}
	return errors.Join(found...)
}

// CheckPorts finds new ports of a plan that another program listens on. The app's own are not asked
// for, nor one that the app has had at another address and that the app, or systemd, still listens on:
// that listener closes before the new one opens, or is just closing after a stop.
func CheckPorts(p *plan.Plan) error {
	var found []error
	for _, l := range p.NewListeners() {
		if err := portOf("--listen=", l); err != nil && !ownPort(p, l) {
			found = append(found, err)
		}
	}
	for _, b := range p.NewBeside() {
		found = append(found, portOf(b.Option, b.Listen))
	}
	return errors.Join(found...)
}

// ownPort reports whether the app has had the port of l, and nobody else is seen to listen on it.
func ownPort(p *plan.Plan, l app.Listen) bool {
	had := func(was app.Listen) bool { return !was.IsUnix() && was.Port == l.Port }
	if p.Was == nil || l.IsUnix() || !slices.ContainsFunc(p.Was.Listen, had) {
		return false
	}
	h, ok := explain.FindHolder(int(l.Port))
	_, own := p.App.Name.ParseUnit(h.Unit)
	return !ok || own || h.PID == 1
}

// portOf is port with the option in the error.
func portOf(option string, l app.Listen) error {
	err := port(l)
	if !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	who := ""
	if h, ok := explain.FindHolder(int(l.Port)); ok && h.PID != 1 {
		who = ": " + h.String()
	}
	return fault.Input(fmt.Sprintf("ss -ltnp 'sport = :%d'", l.Port), "%s%s is in use by another program%s", option, l, who)
}

// socketPath refuses the path of a unix socket if there is another kind of file, or a socket on
// which another program listens: PID 1 unlinks any file at the paths of its sockets
// (socket_address_listen() in src/shared/socket-util.c).
func socketPath(root, option string, l app.Listen) error {
	path := root + l.Unix
	if !strings.HasPrefix(l.Unix, "/") {
		return nil
	}
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil // nothing is there; what is wrong with the directory PID 1 says
	case st.Mode().Type() != fs.ModeSocket:
		return fault.Input("ls -l "+app.ShellWord(l.Unix), "%s%s exists and is no socket: systemd would delete it", option, l)
	case listenedOn(path):
		return fault.Input("ss -lxp src "+app.ShellWord(l.Unix), "%s%s is in use by another program", option, l)
	}
	return nil
}

// listenedOn reports whether a socket that is bound to path listens; /proc/net/unix has a flag for
// that (__SO_ACCEPTCON). A server that has ended leaves its path behind.
func listenedOn(path string) bool {
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 8)
		if len(fields) == 8 && fields[3] == "00010000" && strings.TrimLeft(fields[7], " ") == path {
			return true
		}
	}
	return false
}

// port returns an error that wraps unix.EADDRINUSE if another program listens where l is to,
// without SO_REUSEPORT: with it, a listener of another user's would go unseen. What else keeps
// bind(2) from working (an address that comes up later, a port below 1024) is no business of this
// check and gives nil.
func port(l app.Listen) error {
	if l.IsUnix() {
		return nil // see socketPath
	}
	addr := l.Addr
	if !addr.IsValid() {
		addr = netip.IPv6Unspecified()
	}
	family := sock.Family(addr)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	// As PID 1 does, or a port with connections in TIME_WAIT would look used (socket_address_listen
	// in shared/).
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if family == unix.AF_INET6 {
		both := 1
		if !l.Addr.IsValid() {
			both = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, both); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Bind(fd, sock.Sockaddr(netip.AddrPortFrom(addr, l.Port))); errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("bind %s: %w", l, err)
	}
	return nil
}
