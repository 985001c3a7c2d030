package memory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/app"
)

// Processes of this group and of those below count; one that has ended holds nothing.
func TestProcesses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cgroup.procs")
	self := "self\n"
	if err := os.WriteFile(file, []byte(self+"4194305\n"+self), 0o600); err != nil {
		t.Fatal(err)
	}
	pages, err := processes(file)
	if err != nil || pages == 0 {
		t.Fatalf("got %d pages, %v", pages, err)
	}
	one, err := statm("/proc/self/statm")
	if err != nil || pages < one || pages > 4*one {
		t.Errorf("two processes of %d pages have %d, %v", one, pages, err)
	}
}

func TestStatm(t *testing.T) {
	for text, want := range map[string]uint64{"100 25 3 1 0 9 0\n": 25, "0 0 0 0 0 0 0\n": 0} {
		file := filepath.Join(t.TempDir(), "statm")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := statm(file); err != nil || got != want {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
	if _, err := statm(os.DevNull); err == nil || !strings.Contains(err.Error(), "no second number") {
		t.Errorf("empty file: got %v", err)
	}
}

func TestResidentOfNothing(t *testing.T) {
	for _, group := range []string{"", "/no.slice/such.service"} {
		if size, err := resident(group); err != nil || size != 0 {
			t.Errorf("%q: got %v, %v", group, size, err)
		}
	}
	if got := rounded(app.Size(300<<20 + 1)); got != "300M" {
		t.Errorf("got %q", got)
	}
}
