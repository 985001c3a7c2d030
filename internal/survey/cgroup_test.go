package survey

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReadUsage(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := readUsage(dir); got != (Usage{}) {
		t.Errorf("an empty group: %+v", got)
	}
	write("cpu.stat", "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n")
	if got, want := readUsage(dir), (Usage{CPU: 2.5, HasCPU: true}); got != want {
		t.Errorf("without the memory controller: %+v, want %+v", got, want)
	}
	write("memory.current", "1048576\n")
	if got, want := readUsage(dir), (Usage{CPU: 2.5, HasCPU: true, Memory: 1 << 20, HasMemory: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	write("cpu.stat", "nonsense")
	write("memory.current", "max\n")
	if got := readUsage(dir); got != (Usage{}) {
		t.Errorf("nonsense: %+v", got)
	}
}
