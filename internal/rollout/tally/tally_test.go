package tally

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCountsByResult(t *testing.T) {
	dir := t.TempDir()
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	now := time.UnixMicro(1000)
	for _, c := range []struct {
		result Result
		took   time.Duration
	}{{Success, time.Second}, {Failure, 2 * time.Second}, {Success, 3 * time.Second}} {
		if err := Begin(dir, now); err != nil {
			t.Fatal(err)
		}
		if err := End(dir, c.result, c.took, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := Begin(dir, now); err != nil { // and is killed
		t.Fatal(err)
	}
	if got, err := Read(dir); err != nil || got.Running != 1000 {
		t.Errorf("under way: %+v, %v", got, err)
	}
	for range 2 { // the second finds nothing to count
		if err := Settle(dir); err != nil {
			t.Fatal(err)
		}
	}
	want := Tally{Ended: map[Result]Ended{Success: {2, 4}, Failure: {1, 2}, Killed: {1, 0}}, Last: 1000}
	if got, err := Read(dir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	st, err := os.Stat(filepath.Join(dir, File))
	if err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("file: %v, %v", st.Mode(), err)
	}
}

func TestBeginCountsTheOneThatWasKilled(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if err := Begin(dir, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Read(dir); err != nil || got.Ended[Killed].Count != 1 || got.Running == 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestReadBadFile(t *testing.T) {
	dir := t.TempDir()
	if got, err := Read(dir); err != nil || !reflect.DeepEqual(got, Tally{}) {
		t.Errorf("no file: %+v, %v", got, err)
	}
	for _, text := range []string{"", "{", `{"ended": 1}`, `{"ended": {}, "x": "` + strings.Repeat("x", maxFile) + `"}`} {
		if err := os.WriteFile(filepath.Join(dir, File), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(dir); err == nil || !reflect.DeepEqual(got, Tally{}) {
			t.Errorf("%.20q: %+v, %v", text, got, err)
		}
		// A file that is no tally must not be in the way of the next.
		if err := End(dir, Success, 0, time.Now()); err == nil {
			t.Errorf("%.20q: counted in silence", text)
		}
		if got, err := Read(dir); err != nil || got.Ended[Success].Count != 1 {
			t.Errorf("%.20q: then %+v, %v", text, got, err)
		}
	}
}
