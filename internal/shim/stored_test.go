package shim

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/shim/path"
)

// What comes out of the FD store is what it is, whatever its name says: a shim that finds something
// else under each name lets go of it and starts anew.
func TestStoredDescriptorsAreNotBelievedByName(t *testing.T) {
	const first = 900 // of numbers that nothing else gets, so that those which were closed can be told
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	var stored []path.Stored
	b := newBench(t, Options{}) // for the name of an address
	address := strings.ReplaceAll(b.path.Describe().Addresses[0].Address, ":", "+")
	for _, name := range []string{
		"app@1.socket", "app@0.socket", "app@99999.socket", "app@1.service", "other@1.socket", "", "../x", "moved",
		"nodes+0", "nodes+x", "channel@1", "channel@x", "handoff@1", "mess@" + address, "slots", "slots@" + address + "0",
	} {
		fd, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, first)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, path.Stored{Name: name, FD: fd})
	}
	again := newBenchWith(t, Options{}, inherited{stored: stored})
	for _, st := range stored {
		if st.Name == "channel@1" {
			continue // of a Node.js program whose instance is gone: it is the app's to answer, and ends with the shim
		}
		if _, err := unix.FcntlInt(uintptr(st.FD), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("descriptor %q is still open: %v", st.Name, err)
		}
	}
	again.up(1)
	want(t, "a shim that found nonsense", again.connect(2), map[int]int{1: 2})
}
