package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Process is one process of a container, as the host sees it: the test may signal it and read
// /proc/PID without entering the container, within microseconds.
type Process struct {
	PID  int      // on the host
	Args []string // its command line
}

// Processes returns the processes of a service of the container's system manager: its program, and
// the commands of its ExecReload=, ExecStop= and the like that run now. A service that does not run
// has none.
func (c *Container) Processes(unit string) ([]Process, error) {
	// c.cgroups[0] is in the cgroup2 hierarchy; nspawn makes "payload" in it. PID 1 puts the
	// instances of a template into a slice of their own below system.slice (systemd.special(7)).
	slice := filepath.Join(c.cgroups[0], "payload", "system.slice")
	dirs, err := filepath.Glob(filepath.Join(slice, "system-*.slice", unit))
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, dir := range append(dirs, filepath.Join(slice, unit)) {
		data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list processes of %q: %w", unit, err)
		}
		for _, word := range strings.Fields(string(data)) {
			pid, err := strconv.Atoi(word)
			if err != nil {
				return nil, fmt.Errorf("list processes of %q: %w", unit, err)
			}
			args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil || len(args) == 0 {
				continue // it has ended meanwhile
			}
			all = append(all, Process{pid, strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")})
		}
	}
	return all, nil
}

// Init returns the host's process ID of the container's PID 1.
func (c *Container) Init() (int, error) {
	b, err := c.current()
	if err != nil {
		return 0, err
	}
	return b.leader, nil
}
