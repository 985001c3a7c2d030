package activation

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// serveMark is the name of a memory file that a process holds open while Serve runs. The balancer's
// drain reads the descriptors of the instance's main process before the stop signal, and learns
// from this file that the program shuts down gracefully and gives new connections time to send a
// request. sd_notify(3) does not serve: a unit of Type=exec has no notification socket, and the
// manager does not keep unknown variables.
const serveMark = "unitgen.activation.Serve"

// mark makes the file. The caller closes it. A child does not inherit it.
func mark() (*os.File, error) {
	fd, err := unix.MemfdCreate(serveMark, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(serveMark, unix.MFD_CLOEXEC) // Linux before 6.3
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), serveMark), nil
}
