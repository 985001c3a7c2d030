package metrics

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/cgroup"
)

// usageOf reads what the control group of a unit has used since the unit was started (cgroup v2). It is unknown where the group
// is gone, or where CPU or memory is not accounted for.
func usageOf(group string) usage {
	if group == "" {
		return usage{}
	}
	dir := cgroup.Dir(group)
	stat, err := readSmall(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return usage{}
	}
	memory, err := readSmall(filepath.Join(dir, "memory.current"))
	if err != nil {
		return usage{}
	}
	cpu, ok := field(stat, "usage_usec")
	bytes, err := strconv.ParseFloat(strings.TrimSpace(memory), 64)
	return usage{known: ok && err == nil, cpu: cpu / 1e6, memory: bytes}
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
