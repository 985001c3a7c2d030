// Package listenfds takes over the descriptors that a service manager has passed to this process:
// sd_listen_fds(3). It is the part of package activation that knows no package net/http, whose
// initialisation would be a fifth of the life of a small command.
package listenfds

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotPassed says that nothing was passed to this process. The error that wraps it says why.
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

// Env is what the manager has set for this process.
type Env struct {
	Lookup  func(key string) (value string, ok bool)
	Unset   func(key string) error
	PID     int
	FirstFD int // SD_LISTEN_FDS_START for real
}

// Own is the environment of this process.
func Own() Env {
	return Env{Lookup: os.LookupEnv, Unset: os.Unsetenv, PID: os.Getpid(), FirstFD: 3}
}

// FD is one passed descriptor, close-on-exec by now.
type FD struct {
	Number int
	Name   string
}

// Inherit returns the descriptors in the order passed, and removes the variables that describe them.
// The caller owns them. It fails with ErrNotPassed if there are none for this process. After any
// other error every descriptor stays open and unowned: exit.
func (e Env) Inherit() ([]FD, error) {
	request, err := parseListen(e.Lookup, e.PID, OwnPidfdID)
	if unsetErr := e.unset(); unsetErr != nil {
		return nil, errors.Join(err, unsetErr)
	}
	if err != nil {
		return nil, err
	}
	list := make([]FD, 0, min(request.count, 1024))
	for i := range request.count {
		name := unnamed
		if request.names != nil {
			name = request.names[i]
		}
		fd := FD{e.FirstFD + i, name}
		if err := fd.adopt(); err != nil {
			return nil, fmt.Errorf("inherit descriptor %d of LISTEN_FDS=%d: %w", fd.Number, request.count, err)
		}
		list = append(list, fd)
	}
	return list, nil
}

func (e Env) unset() error {
	var errs []error
	for _, key := range []string{"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := e.Unset(key); err != nil {
			errs = append(errs, fmt.Errorf("unset %s: %w", key, err))
		}
	}
	return errors.Join(errs...)
}

// adopt makes the descriptor close-on-exec. One that is already cannot have come through execve(2):
// it was opened by this program, typically by the Go runtime, and LISTEN_FDS counts too many.
func (fd FD) adopt() error {
	flags, err := unix.FcntlInt(uintptr(fd.Number), unix.F_GETFD, 0)
	if err != nil {
		return os.NewSyscallError("fcntl(F_GETFD)", err)
	}
	if flags&unix.FD_CLOEXEC != 0 {
		return errors.New("it is close-on-exec, so this process opened it or took it before")
	}
	_, err = unix.FcntlInt(uintptr(fd.Number), unix.F_SETFD, flags|unix.FD_CLOEXEC)
	return os.NewSyscallError("fcntl(F_SETFD)", err)
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
	owner, err := ParseNumber("LISTEN_PID", text, 31)
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
	count, err := ParseNumber("LISTEN_FDS", text, 31)
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
	id, err := ParseNumber("LISTEN_PIDFDID", text, 64)
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
		if err := CheckName(name); err != nil {
			return nil, fmt.Errorf("parse LISTEN_FDNAMES=%q: %w", text, err)
		}
	}
	return names, nil
}

// CheckName applies the rules of FileDescriptorName= in systemd.socket(5).
func CheckName(name string) error {
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

// ParseNumber accepts plain decimal digits and no zero: no sign, no space, no base prefix.
func ParseNumber(key, text string, bits int) (uint64, error) {
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
