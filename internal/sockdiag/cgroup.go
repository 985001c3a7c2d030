package sockdiag

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// cgroupMounts are where systemd mounts cgroup v2: the second where it still runs with v1 beside it (hybrid).
var cgroupMounts = [...]string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}

// CgroupID returns the id of a cgroup, for Filter.Cgroup and the keys of Conn.CountByCgroup. path is as in the
// property ControlGroup of a unit: absolute, "/" is the root that the caller sees. For the connections of an instance
// take that of app@3.socket; the service has another, which its sockets do not carry. An inactive unit has none
// (os.ErrNotExist), and a unit started anew may have another.
//
// The id is asked for with name_to_handle_at(2), as ss(8) does: the inode number equals it on 64-bit machines only.
func CgroupID(path string) (uint64, error) {
	mount, err := cgroupMount()
	if err != nil {
		return 0, fmt.Errorf("find cgroup %q: %w", path, err)
	}
	// Join cleans the path as if it were rooted, so that it cannot leave the mount.
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(mount, filepath.Join("/", path)), 0)
	if err != nil {
		return 0, fmt.Errorf("find cgroup %q: %w", path, os.NewSyscallError("name_to_handle_at", err))
	}
	if handle.Size() != 8 {
		return 0, fmt.Errorf("find cgroup %q: handle of %d bytes, want 8", path, handle.Size())
	}
	return binary.NativeEndian.Uint64(handle.Bytes()), nil
}

func cgroupMount() (string, error) {
	for _, m := range cgroupMounts {
		var fs unix.Statfs_t
		if err := unix.Statfs(m, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return m, nil
		}
	}
	return "", fmt.Errorf("no cgroup v2 at %q", cgroupMounts)
}
