package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/fault"
)

// temporary is how the names of our temporary files begin. systemd reads no file whose name begins
// with a dot.
const temporary = ".unitgen-"

// transaction makes changes to the disk, all or none. First every new file is written beside its
// place and every old one gets a second name, where a full disk or a missing right shows; then the
// new files are renamed into place. The old ones' second names are the way back: same file, same
// time stamps.
type transaction struct {
	steps []step
	dirs  []string // made by us, outermost first
}

// step is one change under way.
type step struct {
	Change
	fresh string // the new file, not in place yet; empty to remove
	old   string // second name of what was there; empty for nothing
	done  bool
}

// Write makes the plan's changes, or leaves everything as it was and returns why.
func (p *Plan) Write() error { return Commit(p.Changes) }

// Commit makes all changes, or leaves everything as it was and returns why. An error on the way
// back is joined.
func Commit(changes []Change) error {
	t := &transaction{}
	err := t.stage(changes)
	if err == nil {
		err = t.swap()
	}
	if err != nil {
		return errors.Join(fault.Write(err), t.rollback())
	}
	return t.finish()
}

// Try finds out whether Commit can make all changes, and leaves everything as it was. What must be
// stopped before its files change is not stopped for nothing.
func Try(changes []Change) error {
	t := &transaction{}
	err := t.stage(changes)
	return errors.Join(fault.Write(err), t.rollback())
}

// stage does what can fail.
func (t *transaction) stage(changes []Change) error {
	for n, c := range changes {
		if err := t.makeDirs(filepath.Dir(c.Path)); err != nil {
			return err
		}
		t.steps = append(t.steps, step{Change: c})
		s := &t.steps[n]
		base := filepath.Join(filepath.Dir(c.Path), fmt.Sprintf("%s%d-%d-", temporary, os.Getpid(), n))
		// A hard link, to a symbolic link too: os.Link does not follow (linkat(2) without
		// AT_SYMLINK_FOLLOW).
		switch err := os.Link(c.Path, base+"old"); {
		case err == nil:
			s.old = base + "old"
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("keep %s: %w", c.Path, err)
		}
		var err error
		switch {
		case c.Target != "":
			s.fresh = base + "new"
			err = os.Symlink(c.Target, s.fresh)
		case c.Text != "":
			s.fresh = base + "new"
			err = writeFile(s.fresh, c.Text)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", c.Path, fault.WithoutPath(err))
		}
	}
	return nil
}

// writeFile writes a new file and waits until it is on disk.
func writeFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(0o644) // whatever the umask: systemd and its users read units
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// makeDirs makes dir and its missing parents.
func (t *transaction) makeDirs(dir string) error {
	if st, err := os.Stat(dir); err == nil {
		if !st.IsDir() {
			return fmt.Errorf("make directory %s: %w", dir, unix.ENOTDIR)
		}
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := t.makeDirs(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make directory %s: %w", dir, fault.WithoutPath(err))
	} else if err == nil {
		t.dirs = append(t.dirs, dir)
	}
	return nil
}

// swap puts the new files into place.
func (t *transaction) swap() error {
	for i := range t.steps {
		s := &t.steps[i]
		var err error
		if s.fresh != "" {
			err = os.Rename(s.fresh, s.Path)
		} else {
			err = os.Remove(s.Path)
		}
		if err != nil && !(s.fresh == "" && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("replace %s: %w", s.Path, fault.WithoutPath(err))
		}
		s.done = true
	}
	return nil
}

// rollback leaves the disk as it was before stage.
func (t *transaction) rollback() error {
	var failed []error
	for i := len(t.steps) - 1; i >= 0; i-- {
		s := t.steps[i]
		var err error
		switch {
		case s.done && s.old != "":
			err = os.Rename(s.old, s.Path)
		case s.done:
			err = os.Remove(s.Path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("put back %s: %w", s.Path, err))
		}
	}
	failed = append(failed, t.clean())
	for i := len(t.dirs) - 1; i >= 0; i-- {
		if err := os.Remove(t.dirs[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// clean removes the temporary names.
func (t *transaction) clean() error {
	var failed []error
	for _, s := range t.steps {
		for _, name := range []string{s.fresh, s.old} {
			if _, err := os.Lstat(name); name == "" || errors.Is(err, fs.ErrNotExist) {
				continue // never made; a read-only file system would mind its removal
			}
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}

// finish removes the way back, and directories of links and drop-ins that have become empty, and
// has the names written to disk too.
func (t *transaction) finish() error {
	failed := []error{t.clean()}
	dirs := make(map[string]bool)
	for _, s := range t.steps {
		dirs[filepath.Dir(s.Path)] = true
	}
	for dir := range dirs {
		if strings.HasSuffix(dir, ".wants") || strings.HasSuffix(dir, ".service.d") {
			if err := os.Remove(dir); err == nil { // fails while there is something in it
				continue
			}
		}
		failed = append(failed, syncDir(dir))
	}
	return errors.Join(failed...)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
