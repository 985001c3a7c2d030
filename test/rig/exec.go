package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// killGrace is how long a command of Exec may keep its output open after it was killed.
const killGrace = 2 * time.Second

// guestEnv is the whole environment of commands inside: nothing of the caller's leaks in.
var guestEnv = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8",
	"SYSTEMD_PAGER=cat", "SYSTEMD_COLORS=0",
}

// Output is what a command has written and how it ended.
type Output struct {
	Stdout, Stderr string
	Status         int // exit status; -1 if a signal ended it
}

// Command returns argv as a command that runs as root in the container: in all its namespaces and
// in its init's cgroup (systemd and polkit mistrust a process from outside of their cgroup tree).
// When ctx ends, the command is killed with its process group. A relative name is looked up in the
// container's PATH.
func (c *Container) Command(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	b, err := c.current()
	if err != nil {
		return nil, fmt.Errorf("run %q: %w", argv, err)
	}
	dirs, err := processCgroups(b.leader)
	if err != nil {
		return nil, fmt.Errorf("run %q: %w", argv, err)
	}
	enter := append([]string{"nsenter", "--target", strconv.Itoa(b.leader), "--all", "--"}, argv...)
	args := joinCgroups(dirs, enter...)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = guestEnv
	cmd.Dir = "/"
	// nsenter forks to get into the process ID namespace: killing nsenter alone would leave its
	// child behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killGrace
	return cmd, nil
}

// processCgroups returns the directories of the cgroups of pid in the hierarchies of cgroupRoots.
func processCgroups(pid int) ([]string, error) {
	roots, err := cgroupRoots()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, fmt.Errorf("find cgroup: %w", err)
	}
	var dirs []string
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		hierarchy, path, _ := strings.Cut(rest, ":")
		switch {
		case hierarchy == "":
			dirs = append(dirs, filepath.Join(roots[0], path))
		case hierarchy == "name=systemd" && len(roots) > 1:
			dirs = append(dirs, filepath.Join(roots[1], path))
		}
	}
	return dirs, nil
}

// Exec runs argv in the container and waits for its end. An exit status other than 0 is not an
// error; an error means that the command could not be run or that ctx ended.
func (c *Container) Exec(ctx context.Context, argv ...string) (Output, error) {
	cmd, err := c.Command(ctx, argv...)
	if err != nil {
		return Output{}, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	out := Output{Stdout: stdout.String(), Stderr: stderr.String(), Status: cmd.ProcessState.ExitCode()}
	if ctx.Err() != nil {
		return out, fmt.Errorf("run %q: %w", argv, ctx.Err())
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return out, fmt.Errorf("run %q: %w", argv, err)
	}
	return out, nil
}

// output runs argv and returns what it printed; an exit status other than 0 is an error here.
func (c *Container) output(ctx context.Context, argv ...string) (string, error) {
	out, err := c.Exec(ctx, argv...)
	if err == nil && out.Status != 0 {
		err = fmt.Errorf("run %q: exit status %d: %s", argv, out.Status, strings.TrimSpace(out.Stdout+out.Stderr))
	}
	return out.Stdout, err
}

// Systemctl runs systemctl with args; an exit status other than 0 is an error that has its output.
func (c *Container) Systemctl(ctx context.Context, args ...string) error {
	_, err := c.output(ctx, append([]string{"systemctl"}, args...)...)
	return err
}

// Show returns one property of unit as "systemctl show --value" prints it. A unit that does not
// exist has properties too: LoadState is "not-found".
func (c *Container) Show(ctx context.Context, unit, property string) (string, error) {
	if value, simple := c.property(ctx, unit, property); simple {
		return value, nil
	}
	out, err := c.output(ctx, "systemctl", "show", "--value", "--property="+property, "--", unit)
	return strings.TrimSuffix(out, "\n"), err
}

// Journal returns the messages of the units that match pattern ("app.service", "app*"), of all
// boots, with microseconds. It includes what systemd itself has logged about them.
func (c *Container) Journal(ctx context.Context, pattern string) (string, error) {
	if err := c.syncJournal(ctx); err != nil {
		return "", err
	}
	return c.output(ctx, "journalctl", "--no-pager", "--quiet", "--output=short-precise", "--unit="+pattern)
}

// syncJournal waits until journald has written all messages that it got so far.
func (c *Container) syncJournal(ctx context.Context) error {
	_, err := c.output(ctx, "journalctl", "--sync")
	return err
}
