package bindnotify

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
)

// notification is struct seccomp_notif: one system call that waits for its answer.
type notification struct {
	id           uint64
	pid          uint32 // of the thread that calls
	flags        uint32
	number       uint32
	architecture uint32
	instruction  uint64
	arguments    [6]uint64
}

// answer is struct seccomp_notif_resp. If all fields except the id are zero, the call returns 0
// without being executed.
type answer struct {
	id    uint64
	value int64
	errno int32 // negative
	flags uint32
}

// addition is struct seccomp_notif_addfd.
type addition struct {
	id                      uint64
	flags                   uint32
	source, target, fdflags uint32
}

// descriptor of argument i.
func (n *notification) fd(i int) int { return int(int32(n.arguments[i])) }

// kernel is the descriptor on which the kernel asks.
type kernel int

// wait blocks until a process calls or no process is left that could.
func (k kernel) wait() (ended bool, err error) {
	poll := []unix.PollFd{{Fd: int32(k), Events: unix.POLLIN}}
	if _, err := sock.Poll(poll, -1); err != nil {
		return false, os.NewSyscallError("poll", err)
	}
	return poll[0].Revents&unix.POLLIN == 0, nil
}

// receive takes the next call; ENOENT if its caller was killed meanwhile.
func (k kernel) receive(n *notification) error {
	*n = notification{} // the kernel wants zeros
	return k.control(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n))
}

// valid reports whether the caller still waits, so that no other process can have its ID.
func (k kernel) valid(id uint64) bool {
	return k.control(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id)) == nil
}

// replace puts a duplicate of source over descriptor target of the caller.
func (k kernel) replace(id uint64, source socket, target int, fdflags uint32) error {
	a := addition{id: id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, source: uint32(source), target: uint32(target), fdflags: fdflags}
	return os.NewSyscallError("ioctl SECCOMP_IOCTL_NOTIF_ADDFD", k.control(unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&a)))
}

// send ends a call. It is no error if the caller has gone.
func (k kernel) send(a answer) error {
	err := k.control(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a))
	if err == unix.ENOENT {
		return nil
	}
	return os.NewSyscallError("ioctl SECCOMP_IOCTL_NOTIF_SEND", err)
}

func (k kernel) control(request uintptr, argument unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k), request, uintptr(argument))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
