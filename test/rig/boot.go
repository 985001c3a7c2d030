package rig

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// rebootStatus is how systemd-nspawn --keep-unit says that the container asked for a reboot.
const rebootStatus = 133

// boot is one run of the container's systemd, from nspawn's start to its end.
type boot struct {
	leader  int           // process ID of the container's init on the host
	sockets *socketThread // makes sockets in this boot's network namespace
	up      chan struct{} // closed at systemd's READY=1
	gone    chan struct{} // closed when nspawn has ended
	witness witness       // says what this boot's PID 1 says
}

// supervise owns the container from mounts to last process. It runs on its own thread: the mounts
// are in the thread's mount namespace, so they cannot outlive it, and the kernel kills nspawn when
// the thread dies (Pdeathsig).
func (c *Container) supervise() {
	defer close(c.ended)
	err := c.mountRoot()
	for again := err == nil; again; {
		again, err = c.runNspawn()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("container %s has ended: %w", c.Name, err)
	close(c.changed)
	c.changed = nil
}

// mountRoot mounts the overlay at fs/root of the state directory, in a mount namespace of the
// calling thread.
func (c *Container) mountRoot() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	// nspawn keeps lock files and folders for "machinectl bind" there, and forgets them when it is
	// killed.
	if err := os.MkdirAll("/run/systemd/nspawn", 0o755); err != nil {
		return err
	}
	if err := mount("unitgen-test", "/run/systemd/nspawn", "tmpfs", 0, "mode=755,size=1M"); err != nil {
		return err
	}
	fs := filepath.Join(c.dir, "fs")
	if err := os.Mkdir(fs, 0o755); err != nil {
		return err
	}
	// The size is a limit, not a reservation: it keeps a runaway log from taking the host's memory.
	if err := mount("unitgen-test", fs, "tmpfs", 0, fmt.Sprintf("mode=755,size=%dM", cmp.Or(c.opts.Disk, 3072))); err != nil {
		return err
	}
	for _, dir := range []string{"root", "work", "upper", "upper/etc", "upper/etc/systemd", "upper/etc/systemd/journald.conf.d",
		"upper/var", "upper/var/log", "upper/var/log/journal"} {
		if err := os.Mkdir(filepath.Join(fs, dir), 0o755); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(fs, dir), 0o755); err != nil { // whatever the umask
			return err
		}
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return err
	}
	files := map[string]string{
		"machine-id": strings.ReplaceAll(string(id), "-", ""), // a preset one: no first boot, no presets applied
		"hostname":   c.Name + "\n",
		// A test that reads the journal needs every line of it.
		"systemd/journald.conf.d/rig.conf": "[Journal]\nRateLimitIntervalSec=0\n",
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(fs, "upper/etc", name), []byte(data), 0o644); err != nil {
			return err
		}
	}
	upper := filepath.Join(fs, "upper")
	if err := errors.Join(c.maskGenerators(upper), c.hideUnits(upper)); err != nil {
		return err
	}
	return mount("unitgen-test", filepath.Join(fs, "root"), "overlay", 0,
		fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", c.rootfs, fs, fs))
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %q: %w", fstype, target, err)
	}
	return nil
}

// nspawnCommand returns the command of one boot.
func (c *Container) nspawnCommand() (*exec.Cmd, error) {
	// nspawn looks its children up in /proc, by their numbers in its own PID namespace.
	args := joinCgroups(c.cgroups, "/bin/sh", "-c", `mount -t proc proc /proc && exec "$@"`, "sh", "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit",
		"--machine="+c.Name, "--directory="+filepath.Join(c.dir, "fs/root"), "--notify-ready=yes", "--console=pipe",
		"--private-network", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
		// Without bpf(2), IPAddressDeny= silently does nothing and there is no steering.
		"--system-call-filter=bpf", "--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN,CAP_SYS_RESOURCE")
	cmd := exec.Command(args[0], append(args[1:], c.opts.Args...)...)
	console, err := os.OpenFile(c.consolePath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = console, console
	cmd.Env = append(os.Environ(),
		"NOTIFY_SOCKET="+c.notifyPath(),
		// A host with cgroup v1 would pass that on; systemd 258 no longer boots with it, and the
		// tests want one layout.
		"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:    true, // a terminal's ^C is for the program that uses the rig, not for nspawn
		Pdeathsig: syscall.SIGKILL,
		// nspawn is the init of a PID namespace: with it the kernel ends all that runs inside
		// (pid_namespaces(7)), however this process ends. The container's own init outlives an
		// nspawn that is killed.
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
	}
	return cmd, nil
}

func (c *Container) consolePath() string { return filepath.Join(c.dir, "console.log") }
func (c *Container) notifyPath() string  { return filepath.Join(c.dir, "notify") }

// joinCgroups returns the argument list that runs argv as a member of the cgroups. clone3(2) could
// place a child into one cgroup2 directory, but not into a v1 hierarchy as well.
func joinCgroups(dirs []string, argv ...string) []string {
	script := `while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"`
	args := append([]string{"/bin/sh", "-c", script, "sh"}, dirs...)
	return append(append(args, "--"), argv...)
}

// runNspawn boots once and returns when that boot is over; again says that the container asked for
// a reboot.
func (c *Container) runNspawn() (again bool, err error) {
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: c.notifyPath(), Net: "unixgram"})
	if err != nil {
		return false, err
	}
	defer os.Remove(c.notifyPath())
	defer notify.Close()
	cmd, err := c.nspawnCommand()
	if err != nil {
		return false, err
	}
	defer cmd.Stdout.(*os.File).Close()
	if err := c.startNspawn(cmd); err != nil {
		return false, err
	}
	b := &boot{up: make(chan struct{}), gone: make(chan struct{})}
	listened := make(chan struct{})
	go c.listen(b, notify, listened)
	err = cmd.Wait()
	close(b.gone)
	notify.Close()
	<-listened
	if b.sockets != nil {
		b.sockets.close()
	}
	b.witness.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nspawn = nil
	switch {
	case cmd.ProcessState.ExitCode() == rebootStatus && !c.closing:
		return true, nil
	case err == nil:
		err = errors.New("powered off")
	}
	return false, err
}

// startNspawn starts cmd unless the container is being closed; from then on Close finds it.
func (c *Container) startNspawn(cmd *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return errors.New("closed")
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.nspawn = cmd.Process
	return nil
}

// listen follows nspawn's own notifications (sd_notify(3)): first the process ID of the container's
// init, then READY=1 when systemd inside has finished its boot transaction. It publishes the boot
// and ends when notify is closed.
func (c *Container) listen(b *boot, notify *net.UnixConn, done chan<- struct{}) {
	defer close(done)
	buf := make([]byte, 4096)
	ready := false
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return
		}
		for line := range bytes.Lines(buf[:n]) {
			key, value, _ := strings.Cut(strings.TrimSpace(string(line)), "=")
			switch {
			case key == "X_NSPAWN_LEADER_PID" && b.leader == 0:
				if b.leader, err = c.hostPID(value); err != nil {
					c.giveUp(err)
					return
				}
				b.sockets = newSocketThread(b.leader)
				c.publish(b)
			case key == "READY" && value == "1" && b.leader != 0 && !ready:
				ready = true
				close(b.up)
			}
		}
	}
}

// giveUp ends a boot that cannot go on, with the reason at the end of the console log.
func (c *Container) giveUp(reason error) {
	if f, err := os.OpenFile(c.consolePath(), os.O_WRONLY|os.O_APPEND, 0); err == nil {
		fmt.Fprintln(f, reason)
		f.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nspawn != nil {
		c.nspawn.Kill()
	}
}

// hostPID returns the process ID here of the process that is number inner in nspawn's PID
// namespace.
func (c *Container) hostPID(inner string) (int, error) {
	var found int
	err := filepath.WalkDir(c.cgroups[0], func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() != "cgroup.procs" {
			return nil // a cgroup that has just been removed
		}
		pids, _ := os.ReadFile(path)
		for _, pid := range strings.Fields(string(pids)) {
			status, _ := os.ReadFile("/proc/" + pid + "/status") // it may have ended
			_, line, _ := strings.Cut(string(status), "\nNSpid:")
			line, _, _ = strings.Cut(line, "\n")
			// One number for each PID namespace it is in: this one, nspawn's, the container's.
			if numbers := strings.Fields(line); len(numbers) == 3 && numbers[1] == inner {
				if found, err = strconv.Atoi(numbers[0]); err == nil {
					err = fs.SkipAll
				}
				return err
			}
		}
		return nil
	})
	if err == nil && found == 0 {
		err = errors.New("no such process in its cgroups")
	}
	if err != nil {
		return 0, fmt.Errorf("find process %s of systemd-nspawn: %w", inner, err)
	}
	return found, nil
}

func (c *Container) publish(b *boot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot = b
	close(c.changed)
	c.changed = make(chan struct{})
}

// bootAfter waits for the boot that follows old (nil: the first one).
func (c *Container) bootAfter(ctx context.Context, old *boot) (*boot, error) {
	for {
		c.mu.Lock()
		b, changed, err := c.boot, c.changed, c.err
		c.mu.Unlock()
		switch {
		case err != nil:
			return nil, err
		case b != old:
			return b, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// current returns the boot that is running.
func (c *Container) current() (*boot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	if c.boot == nil {
		return nil, fmt.Errorf("container %s is not up yet", c.Name)
	}
	select {
	case <-c.boot.gone:
		return nil, fmt.Errorf("container %s is rebooting", c.Name)
	default:
		return c.boot, nil
	}
}

// waitUp returns when the boot that follows old is complete. "degraded" is up too: what has failed
// is the test's matter.
func (c *Container) waitUp(ctx context.Context, old *boot) error {
	b, err := c.bootAfter(ctx, old)
	if err != nil {
		return c.bootError(err)
	}
	select {
	case <-b.up:
	case <-b.gone:
		return c.bootError(errors.New("ended while booting"))
	case <-ctx.Done():
		return c.bootError(ctx.Err())
	}
	out, err := c.Exec(ctx, "systemctl", "is-system-running", "--wait")
	if err != nil {
		return c.bootError(err)
	}
	if state := strings.TrimSpace(out.Stdout); state != "running" && state != "degraded" {
		return c.bootError(fmt.Errorf("system is %q: %s", state, out.Stderr))
	}
	return nil
}

// bootError adds the end of the console log, which says what nspawn or systemd did not like.
func (c *Container) bootError(err error) error {
	log, _ := os.ReadFile(c.consolePath())
	if len(log) > 2000 {
		log = log[len(log)-2000:]
	}
	return fmt.Errorf("boot container %s: %w\n%s", c.Name, err, bytes.TrimSpace(log))
}

// Reboot reboots the container as "systemctl reboot" does and returns when it is up again. Files
// stay; processes, connections and the network namespace are new.
func (c *Container) Reboot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	old, err := c.current()
	if err != nil {
		return err
	}
	if err := c.Systemctl(ctx, "reboot", "--no-block"); err != nil {
		return err
	}
	return c.waitUp(ctx, old)
}
