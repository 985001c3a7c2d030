package explain

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/systemd"
)

// State says how a unit ended, in PID 1's terms, which every user may read: "exit status 1",
// "signal SEGV", "timeout". It is empty for a unit that has not failed.
func State(u systemd.UnitState) string {
	switch u.Result {
	case "", "success":
		if u.LoadState != "" && u.LoadState != "loaded" {
			return "its unit is " + u.LoadState
		}
		return ""
	case "exit-code":
		if u.ExecMainCode == cldExited {
			return exitStatus(u.ExecMainStatus)
		}
		return "not ready in time" // PID 1 ended the program, as the command failed that waits for it
	case "signal", "core-dump":
		return "signal " + signalName(u.ExecMainStatus)
	case "oom-kill":
		return "out of memory"
	case "timeout":
		return "time-out"
	case "start-limit-hit":
		return "it failed too often"
	}
	return "result " + u.Result
}

// cldExited is CLD_EXITED of sigaction(2).
const cldExited = 1

func exitStatus(status int) string {
	text := "exit status " + strconv.Itoa(status)
	if step, ok := steps[status]; ok {
		text += "/" + step.name
	}
	return text
}

// signalName is "SEGV" for 11.
func signalName(number int) string {
	if name := unix.SignalName(unix.Signal(number)); len(name) > 3 {
		return name[3:]
	}
	return strconv.Itoa(number)
}

// step is what PID 1 does between fork and exec, with the exit status of a child that fails in it
// (systemd.exec(5), "Process Exit Codes").
type step struct{ name, what string }

var steps = map[int]step{
	200: {"CHDIR", "go to the working directory"},
	201: {"NICE", "set the scheduling priority (Nice=)"},
	202: {"FDS", "pass the sockets"},
	203: {"EXEC", "execute the program"},
	204: {"MEMORY", "get memory"},
	205: {"LIMITS", "set a resource limit (Limit...=)"},
	206: {"OOM_ADJUST", "set OOMScoreAdjust="},
	208: {"STDIN", "open standard input"},
	209: {"STDOUT", "open standard output"},
	214: {"SETSCHEDULER", "set the scheduling policy"},
	215: {"CPUAFFINITY", "set CPUAffinity="},
	216: {"GROUP", "become the group"},
	217: {"USER", "become the user"},
	218: {"CAPABILITIES", "set the capabilities"},
	219: {"CGROUP", "enter the control group"},
	222: {"STDERR", "open standard error"},
	224: {"PAM", "open a PAM session"},
	225: {"NETWORK", "set up the network namespace"},
	226: {"NAMESPACE", "set up the sandbox's file systems"},
	227: {"NO_NEW_PRIVILEGES", "set NoNewPrivileges="},
	228: {"SECCOMP", "install the system call filter"},
	230: {"PERSONALITY", "set Personality="},
	231: {"APPARMOR", "change the AppArmor profile"},
	232: {"ADDRESS_FAMILIES", "restrict the address families"},
	233: {"RUNTIME_DIRECTORY", "make the runtime directory"},
	235: {"CHOWN", "change the owner of a socket"},
	238: {"STATE_DIRECTORY", "make the state directory"},
	239: {"CACHE_DIRECTORY", "make the cache directory"},
	240: {"LOGS_DIRECTORY", "make the logs directory"},
	241: {"CONFIGURATION_DIRECTORY", "make the configuration directory"},
	242: {"NUMA_POLICY", "set the NUMA policy"},
	243: {"CREDENTIALS", "set up the credentials"},
	245: {"BPF", "restrict by BPF"},
}

// errnoText is strerror(3)'s word.
func errnoText(n int) string {
	if n == 0 {
		return "unknown reason"
	}
	return fmt.Sprint(unix.Errno(n).Error())
}
