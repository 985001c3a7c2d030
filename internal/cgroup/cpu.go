package cgroup

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CPUs counts the processors that this process may use: its affinity, and the CPU quota of its
// control group and of those above it, rounded up. 1 at least.
func CPUs() int {
	n := 1
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err == nil {
		n = max(1, set.Count())
	}
	group, err := Own()
	if err != nil {
		return n
	}
	for ; ; group = filepath.Dir(group) {
		n = min(n, quota(filepath.Join(Dir(group), "cpu.max")))
		if group == "/" || group == "." {
			break
		}
	}
	return n
}

// CPUNumbers lists the processors that this process may run on, as sched_getaffinity(2) numbers
// them.
func CPUNumbers() []int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return []int{0}
	}
	var numbers []int
	for cpu := 0; len(numbers) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			numbers = append(numbers, cpu)
		}
	}
	return numbers
}

// quota reads cpu.max (Documentation/admin-guide/cgroup-v2.rst): "200000 100000" is two processors,
// "max" is no limit, as is a group without the file.
func quota(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return math.MaxInt
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return math.MaxInt
	}
	limit, err1 := strconv.ParseFloat(fields[0], 64)
	period, err2 := strconv.ParseFloat(fields[1], 64)
	if err1 != nil || err2 != nil || limit <= 0 || period <= 0 {
		return math.MaxInt
	}
	return int(math.Ceil(limit / period))
}
