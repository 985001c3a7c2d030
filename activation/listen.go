package activation

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotPassed says that the service manager passed no descriptor of the kind or name asked for. It
// is the error to branch on in a program that can also open its sockets itself. The error that
// wraps it says why: no LISTEN_PID, a LISTEN_PID of another process, or the names that were passed
// instead.
var ErrNotPassed = errors.New("not passed by the service manager")

const (
	// maxDescriptors is the kernel's own default limit for the descriptors of one process,
	// fs.nr_open.
	maxDescriptors = 1 << 20
	// maxName is systemd's FDNAME_MAX.
	maxName = 255
	// unnamed is the name of every descriptor when there is no LISTEN_FDNAMES, as in
	// sd_listen_fds_with_names(3).
	unnamed = "unknown"
)

// Inherit takes over the descriptors that the service manager passed to this process: the sockets
// of its socket units in the order of the units' Listen…= lines, then the stored ones (FDSTORE=1)
// in any order. Tell them apart by name, never by position.
//
// The caller owns the result and closes it, or takes every descriptor out of it. All descriptors
// are close-on-exec afterwards. Nothing else about them is changed: O_NONBLOCK in particular
// belongs to everybody who shares the socket.
//
// Inherit removes LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS and LISTEN_FDNAMES from the environment,
// whether or not it succeeds, so the first call gets the descriptors and later ones get none. Call
// it once, at the start of main, before other goroutines run.
//
// A process that was passed nothing gets an empty result and no error; asking that for a listener
// fails with ErrNotPassed. An environment that contradicts itself or the open descriptors is an
// error, and then every descriptor stays open and unowned: exit. See sd_listen_fds(3).
func Inherit() (*Descriptors, error) {
	return Env{}.Inherit()
}

// Inherit is the function Inherit with the environment e.
func (e Env) Inherit() (*Descriptors, error) {
	request, err := parseListen(e.lookup, e.pid(), ownPidfdID)
	if unsetErr := e.unsetListen(); unsetErr != nil {
		return nil, errors.Join(err, unsetErr)
	}
	if errors.Is(err, ErrNotPassed) {
		return &Descriptors{absent: err}, nil
	}
	if err != nil {
		return nil, err
	}
	list := make([]*Descriptor, 0, min(request.count, 1024))
	for i := range request.count {
		name := unnamed
		if request.names != nil {
			name = request.names[i]
		}
		d, err := adopt(e.firstFD()+i, name)
		if err != nil {
			return nil, fmt.Errorf("inherit descriptor %d of LISTEN_FDS=%d: %w", e.firstFD()+i, request.count, err)
		}
		list = append(list, d)
	}
	return &Descriptors{list: list}, nil
}

func (e Env) unsetListen() error {
	var errs []error
	for _, key := range []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := e.unset(key); err != nil {
			errs = append(errs, fmt.Errorf("unset %s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}

// adopt makes fd close-on-exec and finds out what it is. A descriptor that is close-on-exec already
// cannot have come through execve(2): it was opened by this program, typically by the Go runtime,
// and LISTEN_FDS counts too many.
func adopt(fd int, name string) (*Descriptor, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl(F_GETFD)", err)
	}
	if flags&unix.FD_CLOEXEC != 0 {
		return nil, errors.New("it is close-on-exec, so this process opened it or took it before")
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags|unix.FD_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("fcntl(F_SETFD)", err)
	}
	d := &Descriptor{name: name, fd: fd}
	if err := d.classify(); err != nil {
		return nil, err
	}
	return d, nil
}

// listenRequest is what LISTEN_* says.
type listenRequest struct {
	count int      // 1 to maxDescriptors
	names []string // count of them, or nil without LISTEN_FDNAMES
}

// parseListen reads LISTEN_*. It fails with ErrNotPassed when they are not there or meant for
// another process, which is no mistake: environments leak into children. ownID returns the pidfd
// inode number of this process, or false where the kernel has none; it is asked only if
// LISTEN_PIDFDID (systemd 259) is there.
func parseListen(lookup func(string) (string, bool), pid int, ownID func() (uint64, bool, error)) (listenRequest, error) {
	var none listenRequest
	text, ok := lookup("LISTEN_PID")
	if !ok {
		return none, fmt.Errorf("%w: LISTEN_PID is not set", ErrNotPassed)
	}
	owner, err := parseNumber("LISTEN_PID", text, 31)
	if err != nil {
		return none, err
	}
	if owner != uint64(pid) {
		return none, fmt.Errorf("%w: LISTEN_PID=%d is another process than this one, %d (a wrapper script must exec the program)", ErrNotPassed, owner, pid)
	}
	if text, ok := lookup("LISTEN_PIDFDID"); ok {
		if err := checkPidfdID(text, ownID); err != nil {
			return none, err
		}
	}
	text, ok = lookup("LISTEN_FDS")
	if !ok {
		return none, fmt.Errorf("%w: LISTEN_FDS is not set", ErrNotPassed)
	}
	count, err := parseNumber("LISTEN_FDS", text, 31)
	if err != nil {
		return none, err
	}
	if count > maxDescriptors {
		return none, fmt.Errorf("parse LISTEN_FDS=%q: more than %d", text, maxDescriptors)
	}
	text, ok = lookup("LISTEN_FDNAMES")
	if !ok {
		return listenRequest{count: int(count)}, nil
	}
	names, err := parseNames(text, int(count))
	return listenRequest{count: int(count), names: names}, err
}

// checkPidfdID compares the inode number of the process's pidfd, which unlike a PID is never used
// twice until the next boot.
func checkPidfdID(text string, ownID func() (uint64, bool, error)) error {
	id, err := parseNumber("LISTEN_PIDFDID", text, 64)
	if err != nil {
		return err
	}
	own, known, err := ownID()
	if err != nil {
		return fmt.Errorf("check LISTEN_PIDFDID=%q: %w", text, err)
	}
	if known && own != id {
		return fmt.Errorf("%w: LISTEN_PIDFDID=%d is another process than this one, %d", ErrNotPassed, id, own)
	}
	return nil
}

func parseNames(text string, count int) ([]string, error) {
	// Counted before split: what comes from the environment does not decide how much is allocated.
	if got := strings.Count(text, ":") + 1; got != count {
		return nil, fmt.Errorf("parse LISTEN_FDNAMES=%q: %d names for LISTEN_FDS=%d", text, got, count)
	}
	names := strings.Split(text, ":")
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("parse LISTEN_FDNAMES=%q: %w", text, err)
		}
	}
	return names, nil
}

// checkName applies the rules of FileDescriptorName= in systemd.socket(5).
func checkName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("check descriptor name %q: longer than %d bytes", name, maxName)
	}
	for i := range len(name) {
		if c := name[i]; c < ' ' || c > '~' || c == ':' {
			return fmt.Errorf("check descriptor name %q: byte %#02x is not allowed", name, c)
		}
	}
	return nil
}

// parseNumber accepts plain decimal digits and no zero: no sign, no space, no base prefix.
func parseNumber(key, text string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		if detail, ok := errors.AsType[*strconv.NumError](err); ok {
			err = detail.Err
		}
		return 0, fmt.Errorf("parse %s=%q: %w", key, text, err)
	}
	if n == 0 {
		return 0, fmt.Errorf("parse %s=%q: must not be zero", key, text)
	}
	return n, nil
}
