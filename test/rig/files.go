package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// openIn opens name as a process inside would: absolute links and ".." stay below the container's
// root (openat2(2), RESOLVE_IN_ROOT), which /proc/PID/root alone does not give.
func (c *Container) openIn(name string, flags uint64, mode os.FileMode) (*os.File, error) {
	b, err := c.current()
	if err != nil {
		return nil, err
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", b.leader), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open root of", Path: c.Name, Err: err}
	}
	defer unix.Close(root)
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Mode: uint64(mode), Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(root, name, &how)
	if err != nil {
		return nil, &os.PathError{Op: "openat2", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ReadFile returns the content of the file name in the container.
func (c *Container) ReadFile(name string) ([]byte, error) {
	f, err := c.openIn(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("read file in container: %w", err)
	}
	defer f.Close()
	return io.ReadAll(f)
}

// WriteFile puts data into the file name in the container, owned by root, with exactly mode. It
// creates missing folders, and replaces an existing file rather than writing into it: a program
// that is running can be replaced too.
func (c *Container) WriteFile(ctx context.Context, name string, data []byte, mode os.FileMode) error {
	if err := c.writeFile(ctx, name, data, mode); err != nil {
		return fmt.Errorf("write file in container: %w", err)
	}
	return nil
}

// CopyIn copies the host's file src to dst in the container, as WriteFile does.
func (c *Container) CopyIn(ctx context.Context, src, dst string, mode os.FileMode) error {
	data, err := os.ReadFile(src)
	if err != nil {
		return fmt.Errorf("copy file into container: %w", err)
	}
	return c.WriteFile(ctx, dst, data, mode)
}

func (c *Container) writeFile(ctx context.Context, name string, data []byte, mode os.FileMode) error {
	name = path.Clean("/" + name)
	dir, err := c.openIn(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		if _, err = c.output(ctx, "mkdir", "-p", path.Dir(name)); err == nil {
			dir, err = c.openIn(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
		}
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	// By descriptor from here on: dir may be in another mount namespace, but its descriptor serves
	// all the same.
	fd := int(dir.Fd())
	tmp := "." + path.Base(name) + ".rig"
	if err := unix.Unlinkat(fd, tmp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "unlinkat", Path: tmp, Err: err}
	}
	out, err := unix.Openat(fd, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "openat", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(out), name)
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	if err := unix.Renameat(fd, tmp, fd, path.Base(name)); err != nil {
		return &os.PathError{Op: "renameat", Path: name, Err: err}
	}
	return nil
}
