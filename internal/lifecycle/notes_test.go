package lifecycle

import (
	"os"
	"testing"
)

// A stop counts once, and for the invocation that it ends.
func TestStopIsTakenOnce(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		noted, taken string
		want         bool
	}{{"a", "a", true}, {"a", "b", false}, {"", "", false}} {
		if err := NoteStop(dir, 1, c.noted); err != nil {
			t.Fatal(err)
		}
		if TakeStop(dir, 2, c.taken) {
			t.Error("the stop of an instance is taken by another one")
		}
		if got := TakeStop(dir, 1, c.taken); got != c.want {
			t.Errorf("invocation %q ends by a stop of %q: %v", c.taken, c.noted, got)
		}
		if TakeStop(dir, 1, c.taken) {
			t.Errorf("the stop of %q is taken twice", c.noted)
		}
	}
}

func TestForgivenRestarts(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []int{0, 7, 0} {
		if err := NoteForgiven(dir, 1, n); err != nil {
			t.Fatal(err)
		}
		if got := Forgiven(dir, 1); got != n {
			t.Errorf("%d restarts are forgiven, want %d", got, n)
		}
	}
}

// What commands of instances have noted does not keep the directory of an app that is gone.
func TestForgetNotes(t *testing.T) {
	dir := t.TempDir()
	if err := Forget(dir); err != nil {
		t.Fatal(err)
	}
	if err := NoteStop(dir, 1, "a"); err != nil {
		t.Fatal(err)
	}
	if err := NoteForgiven(dir, 12, 3); err != nil {
		t.Fatal(err)
	}
	if err := writeNote(dir+"/"+endFile, restarted); err != nil {
		t.Fatal(err)
	}
	if err := Forget(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v are left", left, err)
	}
}
