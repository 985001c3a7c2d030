package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
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

// NoteJoined notes that the shim has the listeners of an instance, for PID 1, which does not start the
// instance's join unit then. The note is a file in a directory: PID 1 removes the directory when it
// closes the listener (RuntimeDirectory= of the socket), and may make it when it opens it, as for
// ExecStartPost= of an administrator.
//
// For units that make no directory of such notes, those of unitgen before it had them, it does nothing.
func NoteJoined(runtimeDir string, instance int) error {
	dir := joinedDir(runtimeDir, instance)
	err := os.Mkdir(dir, 0o700)
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = os.WriteFile(filepath.Join(dir, app.JoinedFile), nil, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("note that instance %d has joined: %w", instance, err)
	}
	return nil
}

// ForgetJoined removes NoteJoined's note. The next start of the instance joins again, which does no
// harm if that is not needed.
func ForgetJoined(runtimeDir string, instance int) error {
	return os.RemoveAll(joinedDir(runtimeDir, instance))
}

func joinedDir(runtimeDir string, instance int) string {
	return filepath.Join(runtimeDir, app.JoinedName, strconv.Itoa(instance))
}

// AdoptJoined makes the directory of the notes for a running app whose units had none, with a note for
// each of instances.
func AdoptJoined(runtimeDir string, instances []int) error {
	err := os.MkdirAll(filepath.Join(runtimeDir, app.JoinedName), 0o755)
	for _, i := range instances {
		err = errors.Join(err, NoteJoined(runtimeDir, i))
	}
	return err
}

// Forget removes the notes of an app that is gone: NoteEnd's and those of its instances.
func Forget(runtimeDir string) error {
	notes := []string{filepath.Join(runtimeDir, endFile)}
	for _, kind := range []string{forgivenNote, stopNote} {
		all, _ := filepath.Glob(filepath.Join(runtimeDir, kind+"*"))
		notes = append(notes, all...)
	}
	errs := []error{os.RemoveAll(filepath.Join(runtimeDir, app.JoinedName))}
	for _, note := range notes {
		if err := removeNote(note); err != nil {
			errs = append(errs, fmt.Errorf("forget an app: %w", err))
		}
	}
	return errors.Join(errs...)
}
