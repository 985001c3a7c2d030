package bindnotify

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// architectures are the tried or built ones: little-endian, 64 bits, with separate system calls for
// bind and listen.
var architectures = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// calls are the numbers of system calls on one architecture.
type calls struct{ bind, listen, setsockopt, seccomp, ioUringSetup uint32 }

func nativeCalls() calls {
	return calls{unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_SETSOCKOPT, unix.SYS_SECCOMP, unix.SYS_IO_URING_SETUP}
}

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	offsetNumber       = 0
	offsetArchitecture = 4
	offsetArguments    = 16 // eight bytes each, the low four first on these architectures
)

// shortestAddress is sizeof(struct sockaddr_in). A shorter address is not of TCP, such as that of
// netlink, which programs bind often.
const shortestAddress = 16

// filter returns the program that the kernel runs at each system call. It asks the supervisor about
//
//   - bind(2) with an address as long as one of IPv4 or longer;
//   - listen(2);
//   - setsockopt(2) that would replace the steering of the group that a listener belongs to;
//   - seccomp(2) that wants a listener of its own and io_uring_setup(2), to be able to say why something fails.
//
// Calls of other architectures pass: there the numbers differ.
func filter(architecture uint32, c calls) []unix.SockFilter {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		least = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		bits  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
	)
	argument := func(i int) uint32 { return uint32(offsetArguments + 8*i) }
	return []unix.SockFilter{
		0: {Code: load, K: offsetArchitecture},
		1: {Code: equal, K: architecture, Jf: 19},
		2: {Code: load, K: offsetNumber},
		3: {Code: equal, K: c.listen, Jt: 18},
		4: {Code: equal, K: c.ioUringSetup, Jt: 17},
		5: {Code: equal, K: c.bind, Jt: 3},
		6: {Code: equal, K: c.setsockopt, Jt: 4},
		7: {Code: equal, K: c.seccomp, Jt: 9},
		8: {Code: ret, K: unix.SECCOMP_RET_ALLOW},

		9:  {Code: load, K: argument(2)},
		10: {Code: least, K: shortestAddress, Jt: 11, Jf: 10},

		11: {Code: load, K: argument(1)},
		12: {Code: equal, K: unix.SOL_SOCKET, Jf: 8},
		13: {Code: load, K: argument(2)},
		14: {Code: equal, K: unix.SO_ATTACH_REUSEPORT_CBPF, Jt: 7},
		15: {Code: equal, K: unix.SO_ATTACH_REUSEPORT_EBPF, Jt: 6},
		16: {Code: equal, K: unix.SO_DETACH_REUSEPORT_BPF, Jt: 5, Jf: 4},

		17: {Code: load, K: argument(0)},
		18: {Code: equal, K: unix.SECCOMP_SET_MODE_FILTER, Jf: 2},
		19: {Code: load, K: argument(1)},
		20: {Code: bits, K: unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, Jt: 1},

		21: {Code: ret, K: unix.SECCOMP_RET_ALLOW},
		22: {Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
	}
}

// install sets the filter on the calling thread, which must be locked, and on everything that the
// thread starts later. It returns the descriptor on which the kernel asks; the caller closes it.
// Nobody can remove the filter.
func install() (int, error) {
	architecture, ok := architectures[runtime.GOARCH]
	if !ok {
		return -1, fmt.Errorf("answer bind on %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	// Without it the kernel wants CAP_SYS_ADMIN for a filter. It is the thread's alone, and stays
	// over execve(2).
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, os.NewSyscallError("prctl", err)
	}
	// A caller that waits is woken by nothing but its death once the supervisor has seen its call
	// (5.19).
	fd, err := seccomp(architecture, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	if errors.Is(err, unix.EINVAL) {
		fd, err = seccomp(architecture, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	}
	return fd, err
}

func seccomp(architecture uint32, flags uintptr) (int, error) {
	program := filter(architecture, nativeCalls())
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return -1, os.NewSyscallError("seccomp", errno)
	}
	return int(fd), nil
}
