package bindnotify

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/sock"
)

// Descriptors of a supervisor, beside the standard ones. Its listeners follow.
const (
	stateFD = 3 + iota // what it has seen: a memfd of lines
	channelFD
	listenerFD
)

// ErrForbidden says that the kernel, or a filter that the process runs under, does not let it be
// supervised.
var ErrForbidden = errors.New("seccomp notification is not allowed here")

// Command says how a supervisor is started.
type Command struct {
	Path      string
	Args      []string // with the program's name
	Env       []string
	Listeners []int // lent
}

// Launch starts a supervisor and puts the calling thread under it, with everything that the thread
// executes and starts later. The thread must be locked. An error that is ErrForbidden changes
// nothing. After other errors the process can no longer bind and must end.
//
// The supervisor is not a child of the process, which would see it in wait(2). It ends when all
// processes under it have ended.
func Launch(c Command) error {
	channel, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(channel[0])
	pid, err := c.start(channel[1])
	unix.Close(channel[1])
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	// With Yama (kernel.yama.ptrace_scope=1) only ancestors may look into a process, and a process
	// that it names itself. Without Yama the kernel does not know the call.
	_ = unix.Prctl(unix.PR_SET_PTRACER, uintptr(pid), 0, 0, 0)
	kernel, err := install()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
	defer unix.Close(kernel)
	if err := unix.Sendmsg(channel[0], []byte{0}, unix.UnixRights(kernel), nil, 0); err != nil {
		return fmt.Errorf("reach supervisor: %w", os.NewSyscallError("sendmsg", err))
	}
	for {
		n, err := unix.Read(channel[0], make([]byte, 1))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("hear supervisor: %w", os.NewSyscallError("read", err))
		case n == 0:
			return errors.New("hear supervisor: it has ended")
		default:
			return nil
		}
	}
}

// start forks the supervisor in a new session, out of reach of signals to the program's process
// group.
func (c Command) start(channel int) (pid int, err error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	defer unix.Close(null)
	state, err := unix.MemfdCreate("unitgen-bind", unix.MFD_CLOEXEC)
	if err != nil {
		return 0, os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(state)
	files := []uintptr{uintptr(null), 2, 2, stateFD: uintptr(state), channelFD: uintptr(channel)}
	for _, fd := range c.Listeners {
		files = append(files, uintptr(fd))
	}
	attr := &syscall.ProcAttr{Dir: "/", Env: c.Env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_PARENT}}
	pid, err = syscall.ForkExec(c.Path, c.Args, attr)
	if err == unix.EINVAL { // the first process of a PID namespace (PrivatePIDs=): it has no parent to give a child to
		attr.Sys.Cloneflags = 0
		pid, err = syscall.ForkExec(c.Path, c.Args, attr)
	}
	return pid, err
}

// Serve is the supervisor that Launch has started: it answers until everything under it has ended.
func (s *Supervisor) Serve() error {
	kernel, err := takeKernel()
	if err != nil {
		return err
	}
	s.kernel = kernel
	for fd := listenerFD; ; fd++ {
		l := socket(fd)
		id, ok := l.id()
		if !ok {
			break
		}
		if address, ok := l.local(); ok && l.listens() {
			s.Listeners = append(s.Listeners, Listener{FD: fd, Address: address, socket: id})
		}
	}
	note := s.Note
	s.Note = func(f Fact) {
		_, _ = unix.Write(stateFD, []byte(f.line())) // a memory file: it may be full, of which nobody can be told
		if note != nil {
			note(f)
		}
	}
	if _, err := unix.Write(channelFD, []byte{0}); err != nil {
		return fmt.Errorf("answer launcher: %w", os.NewSyscallError("write", err))
	}
	unix.Close(channelFD)
	return s.serve()
}

// takeKernel receives the descriptor on which the kernel asks.
func takeKernel() (kernel, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(channelFD, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	fds, err := sock.Rights(oob[:n])
	if err != nil || len(fds) != 1 {
		return -1, ErrAbandoned
	}
	return kernel(fds[0]), nil
}

// ErrAbandoned is what a supervisor ends with whose launcher could not use it.
var ErrAbandoned = errors.New("nothing to supervise")
