package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/sock"
)

// isTerminal is isatty(3).
func isTerminal(fd uintptr) bool {
	_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
	return err == nil
}

// usableCPUs counts the processors that this process may use: its affinity, and the CPU quota of its control group and
// of those above it, rounded up. 1 at least.
func usableCPUs() int {
	n := 1
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err == nil {
		n = max(1, set.Count())
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return n
	}
	for line := range strings.Lines(string(text)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for ; ; group = filepath.Dir(group) {
			n = min(n, quota("/sys/fs/cgroup"+group+"/cpu.max"))
			if group == "/" || group == "." {
				break
			}
		}
	}
	return n
}

// cpuNumbers lists the processors that this process may run on, as sched_getaffinity(2) numbers them.
func cpuNumbers() []int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return []int{0}
	}
	var numbers []int
	for cpu := 0; len(numbers) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			numbers = append(numbers, cpu)
		}
	}
	return numbers
}

// quota reads cpu.max (Documentation/admin-guide/cgroup-v2.rst): "200000 100000" is two processors, "max" is no limit,
// as is a group without the file.
func quota(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return math.MaxInt
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return math.MaxInt
	}
	limit, err1 := strconv.ParseFloat(fields[0], 64)
	period, err2 := strconv.ParseFloat(fields[1], 64)
	if err1 != nil || err2 != nil || limit <= 0 || period <= 0 {
		return math.MaxInt
	}
	return int(math.Ceil(limit / period))
}

// checkSocketPaths checks the unix sockets that the app did not have.
func (c *command) checkSocketPaths(p *plan.Plan) error {
	var found []error
	for _, l := range p.NewListeners() {
		found = append(found, c.checkSocketPath("--listen=", l))
	}
	found = append(found, c.checkSocketPath("--agent=", p.NewAgent()))
	return errors.Join(found...)
}

// checkSocketPath refuses the path of a unix socket where something else is, or a socket that another program listens on: PID
// 1 unlinks what is in the way of its sockets, whatever it is (socket_address_listen() in src/shared/socket-util.c).
func (c *command) checkSocketPath(option string, l app.Listen) error {
	path := c.env.root + l.Unix
	if !strings.HasPrefix(l.Unix, "/") {
		return nil
	}
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil // nothing is there; what is wrong with the directory PID 1 says
	case st.Mode().Type() != fs.ModeSocket:
		return inputf("ls -l "+app.ShellWord(l.Unix), "%s%s exists and is no socket: systemd would delete it", option, l)
	case listenedOn(path):
		return inputf("ss -lxp src "+app.ShellWord(l.Unix), "%s%s is in use by another program", option, l)
	}
	return nil
}

// listenedOn reports whether a socket that is bound to path listens, which /proc/net/unix tells by a flag (__SO_ACCEPTCON).
// A server that is gone leaves its path behind.
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

// checkPort returns an error that wraps unix.EADDRINUSE if another program listens where l is to, without SO_REUSEPORT:
// with it, a listener of another user's would go unseen. What else keeps bind(2) from working (an address that comes up
// later, a port below 1024) is no business of this check and gives nil.
func checkPort(l app.Listen) error {
	if l.IsUnix() {
		return nil // see checkSocketPath
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
	// As PID 1 does, or a port with connections in TIME_WAIT would look used (socket_address_listen in shared/).
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
