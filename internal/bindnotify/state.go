package bindnotify

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Verb is the first argument of a supervisor's command line, by which Find recognises it.
const Verb = "answer"

// ErrNone says that no supervisor is there.
var ErrNone = errors.New("no supervisor")

// State is what a supervisor has seen, oldest first.
type State struct {
	PID   int
	Facts []Fact
}

// Limits of Find: a unit may have any number of processes, and its processes can write anything
// where its supervisor writes.
const (
	maxProcesses = 4096
	maxState     = 32 << 10
)

// Find returns the report of a unit's supervisor. dir is the unit's cgroup, as a directory below
// /sys/fs/cgroup; Find ignores processes outside it. Every process of the unit's user may write the
// report, including a hostile program, so use it for messages only. The error is ErrNone if no
// supervisor runs.
func Find(dir string) (State, error) {
	pids, err := processes(dir)
	if err != nil {
		return State{}, err
	}
	for _, pid := range pids {
		if isSupervisor(pid) {
			return read(pid)
		}
	}
	return State{}, ErrNone
}

// read reads the state of a supervisor.
func read(pid int) (State, error) {
	f, err := openRegular("/proc/" + strconv.Itoa(pid) + "/fd/" + strconv.Itoa(stateFD))
	if err != nil {
		return State{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxState))
	s := State{PID: pid}
	for line := range strings.Lines(string(text)) {
		if f, ok := parseFact(strings.TrimSuffix(line, "\n")); ok {
			s.Facts = append(s.Facts, f)
		}
	}
	return s, err
}

// processes lists the processes of a cgroup and of the groups directly below it, where a unit with
// delegation starts its program.
func processes(dir string) (pids []int, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	below, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
	for _, file := range below[:min(len(below), 16)] {
		more, _ := os.ReadFile(file) // a group may go at any time
		text = append(text, more...)
	}
	for line := range bytes.Lines(text) {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(line))); err == nil && len(pids) < maxProcesses {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func isSupervisor(pid int) bool {
	f, err := openRegular("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 256))
	words := strings.Split(string(text), "\x00")
	return err == nil && len(words) > 2 && filepath.Base(words[0]) == "lbshim" && words[1] == Verb
}

// openRegular opens a regular file. It refuses anything else that a program may have put there,
// such as a pipe that would block.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		f.Close()
		return nil, ErrNone
	}
	return f, nil
}
