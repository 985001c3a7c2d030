package listenfds

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// OwnPidfdID returns the inode number of a pidfd of this process: LISTEN_PIDFDID of
// sd_listen_fds(3). known is false if the kernel gives pidfds no inode numbers (before Linux 6.9,
// and in 32 bits), or does not let us open one.
func OwnPidfdID() (id uint64, known bool, err error) {
	if strconv.IntSize < 64 {
		return 0, false, nil // the kernel's inode numbers have 32 bits there, the id has 64
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // EPERM: a seccomp filter
		return 0, false, nil
	}
	if err != nil {
		return 0, false, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, false, os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.PID_FS_MAGIC {
		return 0, false, nil // one anonymous inode for all pidfds
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return 0, false, os.NewSyscallError("fstat", err)
	}
	return stat.Ino, true, nil
}
