package regular

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A pipe that nobody writes to, and a directory, are refused at once; of a long file the beginning
// is read.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	pipe, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, dir, filepath.Join(dir, "none")} {
		if text, err := Read(path, 4); err == nil {
			t.Errorf("%s was read: %q", path, text)
		}
	}
	if text, err := Read(file, 4); err != nil || text != "abcd" {
		t.Errorf("read %q, %v, want the first 4 bytes", text, err)
	}
}
