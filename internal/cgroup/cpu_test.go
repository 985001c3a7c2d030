package cgroup

import (
	"math"
	"os"
	"runtime"
	"testing"
)

func TestQuota(t *testing.T) {
	for text, want := range map[string]int{"max 100000\n": math.MaxInt, "200000 100000\n": 2, "150000 100000\n": 2, "1000 100000\n": 1, "": math.MaxInt} {
		file := t.TempDir() + "/cpu.max"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := quota(file); got != want {
			t.Errorf("quota(%q) = %d, want %d", text, got, want)
		}
	}
	if n := CPUs(); n < 1 || n > runtime.NumCPU() {
		t.Errorf("CPUs() = %d", n)
	}
	if numbers := CPUNumbers(); len(numbers) != runtime.NumCPU() {
		t.Errorf("CPUNumbers() = %v, and there are %d", numbers, runtime.NumCPU())
	}
}
