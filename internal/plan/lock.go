package plan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/fault"
)

// Lock keeps other unitgen runs out of the site's directory until release is called, and removes
// the temporary files of a killed run. It calls waiting once if it has to wait for another run.
func (s Site) Lock(ctx context.Context, waiting func()) (release func(), err error) {
	f, err := s.openLock()
	if errors.Is(err, fs.ErrNotExist) {
		// No run works in a directory that does not exist. If two runs make it, the exclusive
		// creation of files stops one of them.
		return func() {}, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("write to %s: %w", s.Dir, fault.WithoutPath(err))
	}
	if err != nil {
		return nil, fault.Write(err)
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", s.Dir, err)
		}
		waiting()
		locked := make(chan error, 1)
		go waitForLock(f, locked)
		select {
		case err = <-locked:
		case <-ctx.Done():
			err = ctx.Err() // the process ends, and the goroutine and its descriptor with it
		}
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", s.Dir, err)
		}
	}
	removeStale(s.Dir)
	return func() { f.Close() }, nil
}

// openLock opens the file to lock: the directory, or for the system's directory a file that only
// root may open. Any user may lock a file that he may read, and could make root wait.
func (s Site) openLock() (*os.File, error) {
	if s.Packaging || s.UserUnits {
		return os.Open(s.Dir)
	}
	return os.OpenFile(s.Root+"/run/unitgen.lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}

// removeStale removes the temporary files of a run that was killed; the caller holds the lock. What
// cannot be removed does no harm.
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

// waitForLock runs in a separate goroutine, because flock(2) has no deadline. It ends when the lock
// is free.
func waitForLock(f *os.File, locked chan<- error) { locked <- flock(f, unix.LOCK_EX) }

// flock locks f for its open file description, until it is closed. how is unix.LOCK_EX, with
// LOCK_NB or without.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			return os.NewSyscallError("flock", err)
		}
	}
}
