package activation

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// serveMark is the name of a memory file that a process holds open while Serve runs. By it the balancer's drain, which looks
// at the descriptors of the instance's main process before the stop signal, knows that the program shuts down gracefully and
// gives new connections time to ask. systemd could not be told: a unit of Type=exec has no notification socket, and the
// manager keeps nothing that it does not know.
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
