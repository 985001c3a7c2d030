package lifecycle

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/cgroup"
)

// Running returns the process of the app's shim, by PID 1's control groups; 0 if there is none, or
// none is found. The caller is a command of one of the app's instances. Each start and stop of an
// instance has three such commands, and PID 1 sets up a connection for each question to it. What
// Running does not find, in a slice of the administrator's or between two shims, PID 1 tells
// (Answers).
//
// A shim that was found and ends now leaves a connection of the caller at its socket, which does
// not start it again: in a stop, PID 1 refuses what waits at a socket that stops too.
func Running(name app.Name) int {
	own, err := cgroup.Own()
	if err != nil {
		return 0
	}
	for group := own; group != "/" && group != "."; {
		group = filepath.Dir(group)
		text, err := os.ReadFile(filepath.Join(cgroup.Dir(group), name.Service(), "cgroup.procs"))
		if err != nil {
			continue // the service is in a slice above this one
		}
		for word := range strings.Lines(string(text)) {
			pid, err := strconv.Atoi(strings.TrimSpace(word))
			if err == nil && serves(pid, name) {
				return pid
			}
		}
		return 0
	}
	return 0
}

// serves reports whether a process is the shim, and not one of the commands of its unit.
func serves(pid int, name app.Name) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false // it has ended
	}
	args := bytes.Split(text, []byte{0})
	return len(args) > 2 && string(args[1]) == "serve" && string(args[2]) == string(name)
}
