package live

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A drain that cannot be noted in all its places leaves no note: the next balancer would drain a
// host that nobody drained.
func TestNotesOfADrainAreWrittenOrNot(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "run/app/drained"), filepath.Join(dir, "state/app.drained")
	wall := filepath.Join(dir, "state")
	if err := os.WriteFile(wall, nil, 0o644); err != nil { // where a directory must be
		t.Fatal(err)
	}
	if fresh, err := writeNotes(first, second); err == nil || fresh != nil {
		t.Errorf("got %v, %v", fresh, err)
	}
	if _, err := os.Lstat(first); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the first note: %v", err)
	}
	// One that was there already stays, and is not of this drain.
	if fresh, err := writeNotes(first); err != nil || !slices.Equal(fresh, []string{first}) {
		t.Fatalf("got %v, %v", fresh, err)
	}
	if _, err := writeNotes(first, second); err == nil {
		t.Error("no error")
	}
	if _, err := os.Lstat(first); err != nil {
		t.Errorf("the note of an earlier drain: %v", err)
	}
	if err := os.Remove(wall); err != nil {
		t.Fatal(err)
	}
	if fresh, err := writeNotes(first, second); err != nil || !slices.Equal(fresh, []string{second}) {
		t.Errorf("got %v, %v, want the one that is new", fresh, err)
	}
}
