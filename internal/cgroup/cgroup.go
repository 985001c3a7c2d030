// Package cgroup finds the directories of control groups in the unified hierarchy, which is
// systemd's, and counts the processors that this process may use.
package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is the directory of a unit's ControlGroup=; an empty one is the root's. Where control groups
// of version 1 are mounted too, the unified hierarchy is below them.
func Dir(group string) string {
	const hybrid = "/sys/fs/cgroup/unified"
	var fs unix.Statfs_t
	if err := unix.Statfs(hybrid, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return filepath.Join(hybrid, filepath.Join("/", group))
	}
	return filepath.Join("/sys/fs/cgroup", filepath.Join("/", group))
}

// Own is the group of this process, as Dir takes it.
func Own() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if group, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return group, nil
		}
	}
	return "", errors.New("find own control group: not in the unified hierarchy")
}
