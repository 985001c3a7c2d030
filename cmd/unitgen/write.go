package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// temporary is how the names of our temporary files begin. systemd reads no file whose name begins with a dot.
const temporary = ".unitgen-"

// transaction makes changes to the disk, all or none. First every new file is written beside its place and every old
// one gets a second name, where a full disk or a missing right shows; then the new files are renamed into place. The
// old ones' second names are the way back: same file, same time stamps.
type transaction struct {
	steps []step
	dirs  []string // made by us, outermost first
}

// step is one change under way.
type step struct {
	change
	fresh string // the new file, not in place yet; empty to remove
	old   string // second name of what was there; empty for nothing
	done  bool
}

// commit makes all changes, or leaves everything as it was and returns why. An error on the way back is joined.
func commit(changes []change) error {
	t := &transaction{}
	err := t.stage(changes)
	if err == nil {
		err = t.swap()
	}
	if err != nil {
		return errors.Join(writeFault(err), t.rollback())
	}
	return t.finish()
}

// try finds out whether commit can make all changes, and leaves everything as it was. What must be stopped before its files change
// is not stopped for nothing.
func try(changes []change) error {
	t := &transaction{}
	err := t.stage(changes)
	return errors.Join(writeFault(err), t.rollback())
}

// stage does what can fail.
func (t *transaction) stage(changes []change) error {
	for n, c := range changes {
		if err := t.makeDirs(filepath.Dir(c.path)); err != nil {
			return err
		}
		t.steps = append(t.steps, step{change: c})
		s := &t.steps[n]
		base := filepath.Join(filepath.Dir(c.path), fmt.Sprintf("%s%d-%d-", temporary, os.Getpid(), n))
		// A hard link, to a symbolic link too: os.Link does not follow (linkat(2) without AT_SYMLINK_FOLLOW).
		switch err := os.Link(c.path, base+"old"); {
		case err == nil:
			s.old = base + "old"
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("keep %s: %w", c.path, err)
		}
		var err error
		switch {
		case c.target != "":
			s.fresh = base + "new"
			err = os.Symlink(c.target, s.fresh)
		case c.text != "":
			s.fresh = base + "new"
			err = writeFile(s.fresh, c.text)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", c.path, withoutPath(err))
		}
	}
	return nil
}

// withoutPath takes the temporary name out of an error: nobody can do anything with it.
func withoutPath(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// writeFile writes a new file and waits until the disk has it.
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

// makeDirs makes dir and what is missing above it.
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
		return fmt.Errorf("make directory %s: %w", dir, withoutPath(err))
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
			err = os.Rename(s.fresh, s.path)
		} else {
			err = os.Remove(s.path)
		}
		if err != nil && !(s.fresh == "" && errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("replace %s: %w", s.path, withoutPath(err))
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
			err = os.Rename(s.old, s.path)
		case s.done:
			err = os.Remove(s.path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, fmt.Errorf("put back %s: %w", s.path, err))
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

// finish removes the way back, and directories of links and drop-ins that have become empty, and has the names written to disk too.
func (t *transaction) finish() error {
	failed := []error{t.clean()}
	dirs := make(map[string]bool)
	for _, s := range t.steps {
		dirs[filepath.Dir(s.path)] = true
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

// lock keeps other unitgen runs out of the site's directory until release is called, and removes what one that was
// killed left behind.
func (c *command) lock(ctx context.Context) (release func(), err error) {
	dir := c.site.dir
	f, err := c.openLock()
	if errors.Is(err, fs.ErrNotExist) {
		// Nobody works in a directory that does not exist; two runs that make it meet at the exclusive creation of files.
		return func() {}, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("write to %s: %w", dir, withoutPath(err))
	}
	if err != nil {
		return nil, writeFault(err)
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		c.say("Waiting for another unitgen that works in %s.", dir)
		locked := make(chan error, 1)
		go waitForLock(f, locked)
		select {
		case err = <-locked:
		case <-ctx.Done():
			err = ctx.Err() // the process ends, and the goroutine and its descriptor with it
		}
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
	}
	removeStale(dir)
	return func() { f.Close() }, nil
}

// openLock opens what is locked: the directory, but for the system's a file that is root's alone. Any user may lock what
// he may read, and could keep root waiting.
func (c *command) openLock() (*os.File, error) {
	if c.site.packaging || c.site.userUnits {
		return os.Open(c.site.dir)
	}
	return os.OpenFile(c.env.root+"/run/unitgen.lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}

// removeStale removes the temporary files of a run that was killed; the caller holds the lock. What cannot be removed
// does no harm.
func removeStale(dir string) {
	for _, pattern := range []string{temporary + "*", "*.wants/" + temporary + "*", "*.service.d/" + temporary + "*"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			continue // dir has characters of patterns in it
		}
		for _, name := range names {
			os.Remove(name)
		}
	}
}

// waitForLock is a goroutine of its own as flock(2) knows no deadline. It ends when the lock is free.
func waitForLock(f *os.File, locked chan<- error) { locked <- flock(f, unix.LOCK_EX) }
