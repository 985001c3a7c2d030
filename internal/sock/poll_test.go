package sock

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Signals that come all the time neither end a call nor make it longer.
func TestPollUnderSignals(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer CloseAll(pipe[:])
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread, stop, ended := unix.Gettid(), make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), thread, unix.SIGURG)
			}
		}
	}()
	defer func() { close(stop); <-ended }()
	fds := []unix.PollFd{{Fd: int32(pipe[0]), Events: unix.POLLIN}}
	for _, timeout := range []time.Duration{0, 50 * time.Millisecond} {
		for range 20 {
			began := time.Now()
			if n, err := Poll(fds, timeout); n != 0 || err != nil || time.Since(began) < timeout {
				t.Fatalf("poll for %v of a pipe that nobody writes to: %d, %v after %v", timeout, n, err, time.Since(began))
			}
		}
	}
	if _, err := unix.Write(pipe[1], []byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := Poll(fds, -1); n != 1 || err != nil {
		t.Errorf("poll of a pipe that has something: %d, %v", n, err)
	}
}
