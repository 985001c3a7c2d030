package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// newPrefix marks a state directory that is not locked yet; sweep leaves it alone.
const newPrefix = ".new-"

// lockDir opens dir and takes a lock on it, flock(2) with how. The kernel drops the lock when the
// process dies, however it dies, so a lock that can be had means that the owner is gone; process
// IDs, which get reused, say less.
func lockDir(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock directory %q: %w", dir, os.NewSyscallError("flock", err))
	}
	return f, nil
}

// newStateDir makes the directory of a new container, SUITE-NUMBER, and returns it with its lock
// held.
func newStateDir(suite string) (string, *os.File, error) {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return "", nil, fmt.Errorf("create state directory: %w", err)
	}
	tmp, err := os.MkdirTemp(runDir, newPrefix+suite+"-")
	if err != nil {
		return "", nil, fmt.Errorf("create state directory: %w", err)
	}
	lock, err := lockDir(tmp, unix.LOCK_EX)
	if err != nil {
		return "", nil, errors.Join(err, os.Remove(tmp))
	}
	dir := filepath.Join(runDir, strings.TrimPrefix(filepath.Base(tmp), newPrefix))
	if err := os.Rename(tmp, dir); err != nil {
		lock.Close()
		return "", nil, errors.Join(fmt.Errorf("create state directory: %w", err), os.Remove(tmp))
	}
	return dir, lock, nil
}

// sweep removes what containers of dead processes have left: processes, cgroups and the state
// directory. There are no mounts to remove, they went with the last process of their namespace.
func sweep() error {
	dirs, err := os.ReadDir(runDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove leftovers: %w", err)
	}
	var errs []error
	for _, e := range dirs {
		if strings.HasPrefix(e.Name(), newPrefix) {
			continue
		}
		dir := filepath.Join(runDir, e.Name())
		lock, err := lockDir(dir, unix.LOCK_EX)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
			continue // in use, or another process is sweeping too
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, removeLeftover(dir))
		lock.Close()
	}
	return errors.Join(errs...)
}

func removeLeftover(dir string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	for _, root := range roots {
		if err := removeCgroup(ctx, filepath.Join(root, cgroupPrefix+filepath.Base(dir))); err != nil {
			return fmt.Errorf("remove leftovers of %s: %w", filepath.Base(dir), err)
		}
	}
	return os.RemoveAll(dir)
}
