package rig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupPrefix = "unitgen-test-"

// cgroupRoots returns the mount points of the hierarchies in which a container needs a cgroup of
// its own, cgroup2 first: two containers that share one would fight over its children "payload" and
// "supervisor". A hybrid host has the named v1 hierarchy "systemd" besides. The cgroups are made at
// the top, not in the caller's: a v2 group with processes in it may not hand controllers to
// children ("no internal processes", cgroups(7)).
func cgroupRoots() ([]string, error) {
	var st unix.Statfs_t
	for _, roots := range [][]string{{"/sys/fs/cgroup"}, {"/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"}} {
		if unix.Statfs(roots[0], &st) != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		return slices.DeleteFunc(roots, func(dir string) bool { return unix.Access(dir, unix.F_OK) != nil }), nil
	}
	return nil, errors.New("find cgroup2 hierarchy: neither /sys/fs/cgroup nor /sys/fs/cgroup/unified is one")
}

// makeCgroups creates name in each hierarchy and returns the directories, cgroup2 first.
func makeCgroups(name string) ([]string, error) {
	roots, err := cgroupRoots()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, root := range roots {
		dir := filepath.Join(root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return dirs, fmt.Errorf("create cgroup: %w", err)
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// killCgroup kills all processes below dir, a cgroup2 directory, and waits until they are gone. No
// dir: nothing to do.
func killCgroup(ctx context.Context, dir string) error {
	kill, err := os.OpenFile(filepath.Join(dir, "cgroup.kill"), os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	_, err = kill.WriteString("1")
	if err := errors.Join(err, kill.Close()); err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	events, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // its owner has removed it already
	}
	if err != nil {
		return fmt.Errorf("kill cgroup: %w", err)
	}
	defer events.Close()
	return waitEmpty(ctx, events)
}

// waitEmpty waits until the cgroup of this cgroup.events file has no process. The kernel announces
// each change as POLLPRI, and a read of the file takes note of the present state
// (Documentation/admin-guide/cgroup-v2.rst).
func waitEmpty(ctx context.Context, events *os.File) error {
	buf := make([]byte, 256)
	for {
		n, err := events.ReadAt(buf, 0)
		if errors.Is(err, unix.ENODEV) || strings.Contains(string(buf[:n]), "populated 0") {
			return nil // ENODEV: the cgroup has been removed
		}
		left := time.Minute
		if deadline, ok := ctx.Deadline(); ok {
			left = time.Until(deadline)
		}
		if left <= 0 || ctx.Err() != nil {
			return fmt.Errorf("wait for end of processes in %q: %w", filepath.Dir(events.Name()), context.DeadlineExceeded)
		}
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for end of processes: %w", os.NewSyscallError("poll", err))
		}
	}
}

// removeCgroup kills what is in dir and removes it with its children. No dir: nothing to do. In a
// v1 hierarchy, which cannot kill, the same processes are gone already, because cgroup2 comes first
// in every list.
func removeCgroup(ctx context.Context, dir string) error {
	if err := killCgroup(ctx, dir); err != nil {
		return err
	}
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	for _, d := range slices.Backward(dirs) {
		if e := unix.Rmdir(d); e != nil && !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, fmt.Errorf("remove cgroup %q: %w", d, os.NewSyscallError("rmdir", e)))
		}
	}
	return err
}
