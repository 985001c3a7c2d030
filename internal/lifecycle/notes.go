package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// The commands of an instance leave notes to each other in the runtime directory of the app, which
// is root's. Each is one file for an instance.
const (
	forgivenNote = "forgiven-restarts-" // BackOff's
	stopNote     = "stops-"             // the invocation that PID 1 was asked to end
)

func noteOf(kind, runtimeDir string, instance int) string {
	return filepath.Join(runtimeDir, kind+strconv.Itoa(instance))
}

// NoteStop is for ExecStop= of an instance whose program has not ended by itself: PID 1 ends this
// invocation of it.
func NoteStop(runtimeDir string, instance int, invocation string) error {
	return os.WriteFile(noteOf(stopNote, runtimeDir, instance), []byte(invocation), 0o600)
}

// TakeStop reports whether NoteStop was told of this invocation, and forgets it.
func TakeStop(runtimeDir string, instance int, invocation string) bool {
	note := noteOf(stopNote, runtimeDir, instance)
	told, err := os.ReadFile(note)
	if err != nil {
		return false // it has ended by itself
	}
	os.Remove(note)
	return invocation != "" && string(told) == invocation
}

// Forgiven is what NoteForgiven was told of an instance, 0 if it was told nothing.
func Forgiven(runtimeDir string, instance int) int {
	text, err := os.ReadFile(noteOf(forgivenNote, runtimeDir, instance))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(string(text))
	if err != nil {
		return 0
	}
	return n
}

// NoteForgiven keeps how many restarts of an instance no longer count (BackOff).
func NoteForgiven(runtimeDir string, instance, restarts int) error {
	note := noteOf(forgivenNote, runtimeDir, instance)
	if restarts > 0 {
		return os.WriteFile(note, []byte(strconv.Itoa(restarts)), 0o600)
	}
	return removeNote(note)
}

func removeNote(note string) error {
	if err := os.Remove(note); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Forget removes the notes of an app that is gone: NoteEnd's and those of its instances.
func Forget(runtimeDir string) error {
	notes := []string{filepath.Join(runtimeDir, endFile)}
	for _, kind := range []string{forgivenNote, stopNote} {
		all, _ := filepath.Glob(filepath.Join(runtimeDir, kind+"*"))
		notes = append(notes, all...)
	}
	var errs []error
	for _, note := range notes {
		if err := removeNote(note); err != nil {
			errs = append(errs, fmt.Errorf("forget an app: %w", err))
		}
	}
	return errors.Join(errs...)
}
