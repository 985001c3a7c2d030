package explain

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Socket is a socket of a process, on which it listens or by which it waits for an address.
type Socket struct {
	Net     string `json:"net"`             // tcp, udp, unix
	Address string `json:"address"`         // 0.0.0.0:80, [::]:80, /run/x.sock, @name
	Waits   bool   `json:"waits,omitempty"` // Address is a peer that has not answered yet

	inode uint64
}

// port returns the port of a TCP or UDP socket; 0 for others.
func (s Socket) port() int {
	a, err := netip.ParseAddrPort(s.Address)
	if err != nil {
		return 0
	}
	return int(a.Port())
}

func (s Socket) String() string {
	if s.Net == "unix" {
		return "the unix socket " + s.Address
	}
	if a, err := netip.ParseAddrPort(s.Address); err == nil && a.Addr().IsUnspecified() {
		return portWords(s.Net, int(a.Port()))
	}
	if s.Net == "udp" {
		return "UDP " + s.Address
	}
	return s.Address
}

func portWords(network string, port int) string {
	if network == "udp" {
		return "UDP port " + strconv.Itoa(port)
	}
	return "port " + strconv.Itoa(port)
}

// States of TCP sockets (include/net/tcp_states.h).
const (
	tcpSynSent = "02"
	tcpClose   = "07" // of UDP: not connected
	tcpListen  = "0A"
)

// socketTable reads the sockets of the network that process pid is in: those that listen, and those
// that connect.
func socketTable(proc, pid string) []Socket {
	var all []Socket
	for _, file := range []string{"tcp", "tcp6", "udp", "udp6", "unix"} {
		f, err := os.Open(filepath.Join(proc, pid, "net", file))
		if err != nil {
			continue // no IPv6, or the process has ended
		}
		lines := bufio.NewScanner(f)
		lines.Scan() // the heading
		for lines.Scan() {
			parse := parseInet
			if file == "unix" {
				parse = parseUnix
			}
			if s, ok := parse(strings.TrimSuffix(file, "6"), lines.Text()); ok && len(all) < mostDescriptors {
				all = append(all, s)
			}
		}
		f.Close()
	}
	return all
}

// parseInet reads a line of /proc/net/tcp and its kin (net/ipv4/tcp_ipv4.c, get_tcp4_sock).
func parseInet(network, line string) (Socket, bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return Socket{}, false
	}
	s := Socket{Net: network}
	s.inode, _ = strconv.ParseUint(fields[9], 10, 64)
	address := fields[1]
	switch state := fields[3]; {
	case network == "tcp" && state == tcpListen, network == "udp" && state == tcpClose:
	case network == "tcp" && state == tcpSynSent:
		address, s.Waits = fields[2], true
	default:
		return Socket{}, false
	}
	a, ok := parseHexAddress(address)
	s.Address = a.String()
	return s, ok
}

// parseHexAddress reads an address as the kernel prints it: words of four bytes, each a number in
// the machine's byte order.
func parseHexAddress(text string) (netip.AddrPort, bool) {
	host, portText, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(host)
	port, portErr := strconv.ParseUint(portText, 16, 16)
	if err != nil || portErr != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(b, 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), ok
}

// acceptsConnections is __SO_ACCEPTCON in the flags of /proc/net/unix.
const acceptsConnections = 1 << 16

func parseUnix(_, line string) (Socket, bool) {
	fields := strings.Fields(line)
	if len(fields) < 8 {
		return Socket{}, false
	}
	flags, err := strconv.ParseUint(fields[3], 16, 32)
	if err != nil || flags&acceptsConnections == 0 {
		return Socket{}, false
	}
	inode, err := strconv.ParseUint(fields[6], 10, 64)
	return Socket{Net: "unix", Address: strings.Join(fields[7:], " "), inode: inode}, err == nil
}

// mostDescriptors bounds the look at what processes have open. A program may have half a million
// descriptors in each of many processes (LimitNOFILE=, TasksMax=), and root looks while PID 1
// waits; those that listen do so among their first ones. This many are read in a tenth of a second.
const mostDescriptors = 1 << 16

// budget is the rest of mostDescriptors in one pass.
type budget int

// socketsOf lists the inodes of the sockets that a process has open, as far as the budget goes. It
// reads the directory in pieces, in the order of the descriptors' numbers.
func (left *budget) socketsOf(proc, pid string) map[uint64]bool {
	dir, err := os.Open(filepath.Join(proc, pid, "fd"))
	if err != nil {
		return nil
	}
	defer dir.Close()
	found := make(map[uint64]bool)
	for *left > 0 {
		names, err := dir.Readdirnames(int(min(*left, 1024)))
		*left -= budget(len(names))
		for _, name := range names {
			if inode, ok := socketInode(filepath.Join(dir.Name(), name)); ok {
				found[inode] = true
			}
		}
		if err != nil {
			break
		}
	}
	return found
}

// socketInode reads which socket a descriptor in /proc is.
func socketInode(link string) (uint64, bool) {
	target, err := os.Readlink(link)
	number, ok := strings.CutPrefix(target, "socket:[")
	if err != nil || !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	return inode, err == nil
}

// processes lists the numbers of all processes in sight.
func processes(proc string) []string {
	dir, err := os.Open(proc)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := strconv.Atoi(name)
		return err != nil
	})
}

// cgroupLines is the control group of a process in every hierarchy.
func cgroupLines(proc, pid string) string {
	text, _ := os.ReadFile(filepath.Join(proc, pid, "cgroup"))
	return string(text)
}

// unitOf is the unit in whose control group a process is; empty for none.
func unitOf(proc, pid string) string {
	for line := range strings.Lines(cgroupLines(proc, pid)) {
		parts := strings.Split(strings.TrimSpace(line), "/")
		for _, part := range slices.Backward(parts) {
			if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") && part != "init.scope" {
				return part
			}
		}
	}
	return ""
}

// isForkOfInit reports whether a process is one that PID 1 is about to make a program: until then it
// has everything open that PID 1 has. PID 1 names it after the program, in parentheses. The manager
// of a user is the same file, with other arguments.
func isForkOfInit(proc, pid string) bool {
	of := func(pid, file string) string {
		text, _ := os.ReadFile(filepath.Join(proc, pid, file))
		return string(text)
	}
	exe, _ := os.Readlink(filepath.Join(proc, pid, "exe"))
	init, _ := os.Readlink(filepath.Join(proc, "1", "exe"))
	// In this order: a process that is being named has its new comm first.
	return pid != "1" && exe != "" && exe == init && (of(pid, "cmdline") == of("1", "cmdline") || strings.HasPrefix(of(pid, "comm"), "("))
}

// Holder is the listener on a TCP port.
type Holder struct {
	PID     int
	Program string // comm
	Unit    string // by control group; empty for none
}

func (h Holder) String() string {
	text := fmt.Sprintf("%s (process %d)", h.Program, h.PID)
	if h.Unit != "" {
		text += " of " + h.Unit
	}
	return text
}

// FindHolder finds a process that listens on a TCP port in the host's network. It prefers other
// processes to PID 1, which holds the sockets of all socket units. ok is false if no listener is
// visible.
func FindHolder(port int) (h Holder, ok bool) { return findHolder("/proc", port) }

func findHolder(proc string, port int) (h Holder, ok bool) {
	var inodes []uint64
	for _, s := range socketTable(proc, "self") {
		if s.Net == "tcp" && !s.Waits && s.port() == port {
			inodes = append(inodes, s.inode)
		}
	}
	if len(inodes) == 0 {
		return Holder{}, false
	}
	holds := func(pid string) bool {
		left := budget(mostDescriptors) // for each: who holds the port may be any process of the host
		open := left.socketsOf(proc, pid)
		return slices.ContainsFunc(inodes, func(inode uint64) bool { return open[inode] })
	}
	for _, pid := range processes(proc) {
		// The second look is for a fork that has become its program, or has ended, since the first.
		if !holds(pid) || isForkOfInit(proc, pid) || !holds(pid) {
			continue
		}
		comm, err := os.ReadFile(filepath.Join(proc, pid, "comm"))
		if err != nil {
			continue // it has ended
		}
		number, _ := strconv.Atoi(pid)
		h, ok = Holder{PID: number, Program: printable(string(comm)), Unit: unitOf(proc, pid)}, true
		if number != 1 {
			return h, true
		}
	}
	return h, ok
}
