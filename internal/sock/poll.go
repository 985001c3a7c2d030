package sock

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// Poll is poll(2), which it repeats for the time that is left when a signal interrupts it. The Go
// runtime sends itself signals, and one that is pending interrupts even a call that does not wait. A
// negative timeout means no limit.
func Poll(fds []unix.PollFd, timeout time.Duration) (n int, err error) {
	end := time.Now().Add(timeout)
	for {
		left := -1
		if timeout >= 0 {
			left = int((max(time.Until(end), 0) + time.Millisecond - 1) / time.Millisecond)
		}
		if n, err = unix.Poll(fds, left); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
