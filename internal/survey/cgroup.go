package survey

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/cgroup"
)

// usageOf reads what the control group of a unit has used since the unit was started. What the kernel does not account for there is
// unknown: memory is not where the controller is one of cgroup v1 (hybrid).
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

// readSmall reads the first 4 KiB of a file of the kernel's.
func readSmall(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	return string(text), err
}
