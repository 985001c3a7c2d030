package rollout

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/rollout/tally"
)

// Files below Options.RuntimeDir.
const (
	extraFile = "extra-instances" // numbers, one a line
	lockFile  = "rollout.lock"
)

// lock makes sure that one rollout runs at a time; closing the file releases it. PID 1 runs one
// reload job of a unit at a time, but a rollout can be started by hand too.
func (r *Rollout) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(r.options.RuntimeDir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock rollout: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another rollout of " + string(r.options.App) + " is under way")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock rollout: %w", err)
	}
	return f, nil
}

// Forget removes what rollouts of an app that is gone have left in its runtime directory.
func Forget(runtimeDir string) error {
	var errs []error
	for _, name := range []string{extraFile, lockFile, tally.File} {
		if err := os.Remove(filepath.Join(runtimeDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("forget rollouts: %w", err))
		}
	}
	return errors.Join(errs...)
}

// remember notes the numbers of extra instances before they start; none removes the note.
func (r *Rollout) remember(extra []int) error {
	path := filepath.Join(r.options.RuntimeDir, extraFile)
	if len(extra) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget extra instances: %w", err)
		}
		return nil
	}
	var b strings.Builder
	for _, number := range extra {
		fmt.Fprintln(&b, number)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("note extra instances: %w", err)
	}
	return nil
}

// leftover returns the extra instances of a rollout that was cut off.
func (r *Rollout) leftover() []int { return leftover(r.options.RuntimeDir) }

func leftover(runtimeDir string) []int {
	text, err := os.ReadFile(filepath.Join(runtimeDir, extraFile))
	if err != nil {
		return nil
	}
	var extra []int
	for _, word := range strings.Fields(string(text)) {
		if number, ok := app.ParseInstance(word); ok {
			extra = append(extra, number)
		}
	}
	return extra
}
