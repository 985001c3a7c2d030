// Package memory restarts instances that have grown too large before the kernel kills them: what
// PM2's max_memory_restart does, but drained first and one at a time.
//
// It is not a limit. What grows faster than it looks (APP-memory.timer) is for MemoryMax= to stop.
package memory

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/cgroup"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Relieve restarts the instances of name whose resident memory is above limit, one after another,
// each drained by its ExecStop=. It does nothing during a rollout, which restarts all instances,
// and skips instances that are not up. It stops at the first instance that does not come up again.
func Relieve(ctx context.Context, conn *systemd.Conn, name app.Name, limit app.Size, log *slog.Logger) error {
	instances, err := conn.Instances(ctx, name)
	if err != nil {
		return err
	}
	for _, u := range instances {
		if u.ActiveState != "active" {
			continue
		}
		shim, err := conn.Unit(ctx, name.Service())
		if err != nil {
			return err
		}
		if shim.ActiveState != "active" {
			return nil // rolled, stopped or started just now
		}
		state, err := conn.Unit(ctx, u.Name)
		if err != nil {
			return err
		}
		used, err := resident(state.ControlGroup)
		if err != nil {
			return fmt.Errorf("measure memory of %s: %w", u.Name, err)
		}
		if used <= limit || state.JobType != "" {
			continue
		}
		log.Warn("instance has grown too large and is restarted", "unit", u.Name, "resident", rounded(used), "limit", limit.String())
		// Does not replace a job that somebody else has queued.
		if err := conn.Run(ctx, systemd.Job{Verb: systemd.Restart, Unit: u.Name, Mode: systemd.Fail}); err != nil {
			return err
		}
	}
	return nil
}

// rounded is in whole MiB: pages say nothing to a reader.
func rounded(s app.Size) string { return strconv.FormatUint(uint64(s>>20), 10) + "M" }

// resident is the memory that the processes of a control group and of those below it hold: the sum
// of their resident set sizes, in which a page that two of them share counts twice. The group's own
// count (memory.current) would take in the page cache, which the kernel gives back by itself.
func resident(group string) (app.Size, error) {
	if group == "" {
		return 0, nil // it has ended
	}
	var pages uint64
	err := filepath.WalkDir(cgroup.Dir(group), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return missing(err)
		}
		n, err := processes(path)
		pages += n
		return err
	})
	return app.Size(pages * uint64(os.Getpagesize())), err
}

// processes sums up the resident pages of the processes listed in a file cgroup.procs (cgroups(7)).
func processes(file string) (pages uint64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, missing(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		n, err := statm("/proc/" + lines.Text() + "/statm")
		if err != nil {
			return pages, err
		}
		pages += n
	}
	return pages, missing(lines.Err())
}

// statm reads the second number of /proc/PID/statm, pages in memory (proc(5)), which any user may
// read. A process that has ended holds none.
func statm(file string) (pages uint64, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, missing(err)
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("read %s: %q has no second number", file, text)
	}
	return strconv.ParseUint(fields[1], 10, 64)
}

// missing returns nil for errors about a unit that has just ended, whose files or devices are gone,
// and other errors as they are.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}
