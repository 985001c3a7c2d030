package bindnotify

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// caller is the thread that waits for an answer. Its process may end at any time, and another
// process may get its number. So data that is read from it is valid only if kernel.valid confirms
// it afterwards.
type caller struct{ thread int }

// errUnreadable is what a look into a process ends with that this user may not look into.
var errUnreadable = errors.New("not allowed")

func unreadable(err error) error {
	if err == unix.EPERM || err == unix.EACCES {
		return errUnreadable
	}
	return err
}

// memory reads up to len(into) bytes at an address of the caller.
func (c caller) memory(into []byte, at uint64) (int, error) {
	local := []unix.Iovec{{Base: &into[0]}}
	local[0].SetLen(len(into))
	n, err := unix.ProcessVMReadv(c.thread, local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(into)}}, 0)
	return max(n, 0), unreadable(err)
}

// look is the state of a caller's socket, as visible without a duplicate of it.
type look struct {
	id           socketID
	protocol     string // "tcp", "udp" or empty
	domain       int    // AF_INET or AF_INET6
	nonblocking  bool
	closesOnExec bool
}

// look looks at a descriptor of the caller. The kernel allows it to whoever may read the process,
// and asks for less than for a duplicate (PTRACE_MODE_READ); no filter of a unit forbids it.
func (c caller) look(fd int) (l look, err error) {
	thread, number := strconv.Itoa(c.thread), strconv.Itoa(fd)
	path := "/proc/" + thread + "/fd/" + number
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return l, unreadable(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return l, unix.ENOTSOCK
	}
	l.id = socketID{uint64(st.Dev), st.Ino}
	var name [16]byte
	n, err := unix.Getxattr(path, "system.sockprotoname", name[:]) // sockfs_xattr_get of the kernel
	if err != nil {
		return l, unreadable(err)
	}
	l.protocol, l.domain = protocol(string(bytes.TrimRight(name[:n], "\x00")))
	if field, ok := procField("/proc/"+thread+"/fdinfo/"+number, "flags:"); ok {
		flags, err := strconv.ParseUint(string(field), 8, 32)
		l.nonblocking = err == nil && flags&unix.O_NONBLOCK != 0
		l.closesOnExec = err == nil && flags&unix.O_CLOEXEC != 0
	}
	return l, nil
}

// protocol reads the kernel's name of a protocol (struct proto). Multipath TCP, which Go's
// listeners have, is TCP to its clients.
func protocol(kernel string) (name string, domain int) {
	base, six := strings.CutSuffix(kernel, "v6")
	domain = unix.AF_INET
	if six {
		domain = unix.AF_INET6
	}
	switch base {
	case "TCP", "MPTCP":
		return "tcp", domain
	case "UDP", "UDP-Lite", "UDPLITE":
		return "udp", domain
	}
	return "", domain
}

// duplicate returns a duplicate of a socket of the caller, which the caller of this method closes.
func (c caller) duplicate(fd int) (socket, error) {
	pidfd, err := unix.PidfdOpen(c.thread, 0)
	if err != nil { // the thread is not its process's first
		process, ok := c.process()
		if !ok {
			return -1, err
		}
		if pidfd, err = unix.PidfdOpen(process, 0); err != nil {
			return -1, err
		}
	}
	defer unix.Close(pidfd)
	s, err := unix.PidfdGetfd(pidfd, fd, 0)
	return socket(s), err
}

// process is the thread's process.
func (c caller) process() (int, bool) {
	field, ok := procField("/proc/"+strconv.Itoa(c.thread)+"/status", "Tgid:")
	if !ok {
		return 0, false
	}
	pid, err := strconv.Atoi(string(field))
	return pid, err == nil
}

// procField returns the first word after a name that begins a line of a small file below /proc.
func procField(path, name string) ([]byte, bool) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	defer unix.Close(fd)
	var text [1024]byte
	n, err := unix.Read(fd, text[:])
	if err != nil {
		return nil, false
	}
	_, rest, ok := bytes.Cut(append([]byte{'\n'}, text[:n]...), []byte("\n"+name))
	line, _, _ := bytes.Cut(rest, []byte{'\n'})
	return bytes.TrimSpace(line), ok
}

// why says why this user may not look into the caller.
func (c caller) why() reason {
	if unix.Kill(c.thread, 0) == unix.EPERM {
		return reasonUser
	}
	// If the kernel lets only root look into a process, root owns its directory, or the directory
	// is missing (ProtectProc=).
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(c.thread), &st); err != nil || int(st.Uid) != os.Getuid() {
		return reasonFile
	}
	return reasonAncestry
}

// name is what the caller's process calls itself, without anything that could be mistaken for more
// than a name.
func (c caller) name() string {
	fd, err := unix.Open("/proc/"+strconv.Itoa(c.thread)+"/comm", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "?"
	}
	defer unix.Close(fd)
	var text [16]byte // TASK_COMM_LEN
	n, _ := unix.Read(fd, text[:])
	name := bytes.TrimSuffix(text[:max(n, 0)], []byte{'\n'})
	for i, c := range name {
		if c <= ' ' || c >= 0x7f || c == '"' {
			name[i] = '_'
		}
	}
	if len(name) == 0 {
		return "?"
	}
	return string(name)
}
