// Package rig boots a real systemd for tests: a throw-away overlay of a prepared root file system
// under systemd-nspawn, with its own process, mount and network namespaces and its own cgroups.
// Tests run commands in it, write files into it, reboot it, connect to its loopback from outside
// and put HTTP load on it.
//
// The root file systems come from test/prepare. Root is needed. Nothing outlives a container: its
// mounts belong to a mount namespace of its own, its processes are in a PID namespace that the
// kernel ends with the process that booted it, and what a killed process left in the cgroup tree
// and in /run is removed by the next Start.
//
// The package is not a sandbox: what runs inside is trusted, and is root in the host's user
// namespace.
package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// runDir holds one directory per container: lock, console log, mount point and notify socket.
const runDir = "/run/unitgen-test"

// Defaults of a Container's own waits, on top of the caller's context. A boot takes half a second
// on two idle cores; the limit is for a machine that builds something else at the same time.
const (
	bootTimeout  = 60 * time.Second
	closeTimeout = 15 * time.Second
)

// Options are the choices a test has when it boots a container. The zero value works.
type Options struct {
	// Units are the journal patterns, such as "app*", that Boot shows when the test fails. None:
	// the whole journal.
	Units []string
	// Args are further arguments of systemd-nspawn; those after "--" go to the container's systemd.
	Args []string
	// Disk is the size of the root file system in megabytes; zero: 3072. It is a limit, not a
	// reservation.
	Disk int
}

// Container is one booted system. All methods may be called at the same time from several
// goroutines.
type Container struct {
	Name  string // also the host name inside
	Suite string // Debian release: bookworm (systemd 252), trixie (systemd 257)

	opts    Options
	dir     string
	rootfs  string
	locks   []*os.File // shared on the root file system, exclusive on dir: both say "in use" to other processes
	cgroups []string
	ended   chan struct{} // closed when supervise has returned
	once    sync.Once     // of Close
	closed  error         // what Close returns, set by once

	mu      sync.Mutex
	closing bool          // nspawn must not be started again
	nspawn  *os.Process   // the running one, or nil
	err     error         // why supervise returned
	boot    *boot         // the latest one; nil before the first
	changed chan struct{} // closed and replaced whenever boot is
}

// Missing returns what keeps this process from booting suite, or nil.
func Missing(suite string) error {
	if os.Geteuid() != 0 {
		return errors.New("boot container: not root")
	}
	for _, tool := range []string{"systemd-nspawn", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("boot container: %w (test/prepare installs it)", err)
		}
	}
	if _, err := cgroupRoots(); err != nil {
		return err
	}
	_, err := findRootfs(suite)
	return err
}

// Programs returns the directory of the Node.js versions and frameworks that test/prepare has
// installed.
func Programs() (string, error) {
	dir, err := cached("programs")
	if err != nil {
		return "", fmt.Errorf("find Node.js programs: %w (test/prepare installs them)", err)
	}
	return dir, nil
}

// RootFS returns the directory of the root file system of suite, which nobody may change.
func RootFS(suite string) (string, error) { return findRootfs(suite) }

// cached returns what test/prepare has published under name.
func cached(name string) (string, error) {
	cache := os.Getenv("UNITGEN_CACHE")
	if cache == "" {
		cache = "/var/cache/unitgen-test"
	}
	return filepath.EvalSymlinks(filepath.Join(cache, name))
}

// findRootfs returns the directory that test/prepare has built for suite.
func findRootfs(suite string) (string, error) {
	dir, err := cached(suite)
	if err != nil {
		return "", fmt.Errorf("find root file system %q: %w (test/prepare builds it)", suite, err)
	}
	return dir, nil
}

// Start boots a container from the root file system of suite and returns when its systemd says
// "running" or "degraded". ctx limits the boot only; the container lives until Close. On an error
// nothing is left behind.
func Start(ctx context.Context, suite string, opts Options) (*Container, error) {
	if err := Missing(suite); err != nil {
		return nil, err
	}
	if err := sweep(); err != nil {
		return nil, err
	}
	c := &Container{Suite: suite, opts: opts, ended: make(chan struct{}), changed: make(chan struct{})}
	if err := c.claim(); err != nil {
		return nil, fmt.Errorf("prepare container %s: %w", suite, errors.Join(err, c.release()))
	}
	onOwnThread(c.supervise)
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	if err := c.waitUp(ctx, nil); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// claim takes the name, the locks and the cgroups.
func (c *Container) claim() error {
	var err error
	if c.rootfs, err = findRootfs(c.Suite); err != nil {
		return err
	}
	base, err := lockDir(c.rootfs, unix.LOCK_SH)
	if err != nil {
		return err
	}
	c.locks = append(c.locks, base)
	dir, own, err := newStateDir(c.Suite)
	if err != nil {
		return err
	}
	c.dir, c.Name = dir, filepath.Base(dir)
	c.locks = append(c.locks, own)
	c.cgroups, err = makeCgroups(cgroupPrefix + c.Name)
	return err
}

// Close pulls the plug: it kills everything inside and removes what the container had on the host.
// A test that cares how its units stop stops them before. Further calls wait for the first and
// return its result.
func (c *Container) Close() error {
	c.once.Do(func() { c.closed = c.unplug() })
	return c.closed
}

func (c *Container) unplug() error {
	c.mu.Lock()
	c.closing = true
	if c.nspawn != nil {
		c.nspawn.Kill() // with it all that runs inside, see nspawnCommand
	}
	c.mu.Unlock()
	select {
	case <-c.ended:
	case <-time.After(closeTimeout):
		return fmt.Errorf("stop container %s: killed systemd-nspawn does not end", c.Name)
	}
	return c.release()
}

// release gives back what claim took; it kills what is still in the cgroups.
func (c *Container) release() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	cpu.remove(c)
	var err error
	for _, dir := range c.cgroups {
		err = errors.Join(err, removeCgroup(ctx, dir))
	}
	if err == nil && c.dir != "" { // else it stays, so that the next sweep tries again
		err = os.RemoveAll(c.dir)
	}
	for _, f := range c.locks {
		err = errors.Join(err, f.Close())
	}
	c.locks = nil
	return err
}
