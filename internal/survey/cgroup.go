package survey

import (
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/cgroup"
)

// usageOf reads what the control group of a unit has used since the unit was started. What the
// kernel does not account for there is unknown: memory is not where the controller is one of cgroup
// v1 (hybrid).
func usageOf(group string) Usage {
	if group == "" {
		return Usage{}
	}
	return readUsage(cgroup.Dir(group))
}

func readUsage(dir string) (u Usage) {
	if stat, err := readSmall(filepath.Join(dir, "cpu.stat")); err == nil {
		u.CPU, u.HasCPU = field(stat, "usage_usec")
		u.CPU /= 1e6
	}
	if memory, err := readSmall(filepath.Join(dir, "memory.current")); err == nil {
		bytes, err := strconv.ParseFloat(strings.TrimSpace(memory), 64)
		u.Memory, u.HasMemory = bytes, err == nil
	}
	return u
}

// field is the number behind a word in a file of words and numbers.
func field(text, word string) (float64, bool) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, word+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return n, err == nil
		}
	}
	return 0, false
}

// readSmall reads the first 4 KiB of a file of the kernel's, which gives them at once. It makes
// three system calls, where an os.File takes seven: there are three files of each instance.
func readSmall(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var text [4096]byte
	n, err := unix.Read(fd, text[:])
	return string(text[:max(n, 0)]), err
}
