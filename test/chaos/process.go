package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/test/rig"
)

// isProgram says whether p is what the unit is for: the shim or an instance, not one of the short
// commands of units.
func isProgram(p rig.Process) bool {
	return filepath.Base(p.Args[0]) != "lbshim" || len(p.Args) < 2 || p.Args[1] == "serve" || p.Args[1] == "exec"
}

// isRollout says whether p is what ExecReload= runs.
func isRollout(p rig.Process) bool { return len(p.Args) > 1 && p.Args[1] == "rollout" }

// find waits until unit has a process that is wanted, and opens it. ctx ends without an error:
// there is none.
func (w *world) find(ctx context.Context, unit string, want func(rig.Process) bool, wait time.Duration) (*process, error) {
	for end := time.Now().Add(wait); ; {
		all, err := w.c.Processes(unit)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(all, want); i >= 0 {
			p, err := openProcess(all[i].PID)
			if p != nil || err != nil {
				return p, err
			}
		}
		if time.Now().After(end) || !pause(ctx, 2*time.Millisecond) {
			return nil, nil
		}
	}
}

// process is one that is signalled, and no other that gets its number later. The caller closes it.
type process struct{ pid, fd int }

// openProcess returns nil if there is no such process any more.
func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return &process{pid, fd}, nil
}

func (p *process) close() { unix.Close(p.fd) }

// signal sends s; a process that has ended is no error.
func (p *process) signal(s unix.Signal) error {
	if err := unix.PidfdSendSignal(p.fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	return nil
}

// stopLimit bounds how long a process may take to stop, on a machine that is busy.
const stopLimit = 2 * time.Second

// stop sends SIGSTOP and returns when all threads have stopped: until then they go on.
func (p *process) stop() error {
	if err := p.signal(unix.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(stopLimit); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.pid))
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(stats, runs) {
			return nil
		}
	}
	return fmt.Errorf("stop process %d: it runs on", p.pid)
}

// runs says whether the thread of this stat file runs; one that has ended does not.
func runs(stat string) bool {
	data, err := os.ReadFile(stat)
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(data[bytes.LastIndexByte(data, ')'):], []byte(") "))
	return len(rest) > 0 && !strings.ContainsRune("TtZX", rune(rest[0]))
}

// clients returns the ports of the clients whose connections the process has accepted. It must be
// stopped. It asks each descriptor: the kernel's table of connections leaves some out while others
// come and go.
func (p *process) clients() (map[int]bool, error) {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	if err != nil {
		return nil, err
	}
	ports := map[int]bool{}
	for _, entry := range fds {
		number, err := strconv.Atoi(entry.Name())
		if err != nil {
			return nil, err
		}
		fd, err := unix.PidfdGetfd(p.fd, number, 0)
		if err == unix.EBADF { // such as the one by which a process reads its own directory
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("pidfd_getfd", err)
		}
		peer, err := unix.Getpeername(fd)
		unix.Close(fd)
		if err != nil {
			continue // it is no connection
		}
		switch peer := peer.(type) {
		case *unix.SockaddrInet4:
			ports[peer.Port] = true
		case *unix.SockaddrInet6:
			ports[peer.Port] = true
		}
	}
	return ports, nil
}

// openFiles counts the descriptors of a process.
func openFiles(pid int) (int, error) {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(fds), err
}

// resident is the memory of a process in kilobytes.
func resident(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strconv.Atoi(strings.Fields(value)[0])
		}
	}
	return 0, fmt.Errorf("read memory of process %d: no VmRSS", pid)
}

// pause waits for d; false says that ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
