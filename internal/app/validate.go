package app

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/program"
)

// MinSystemdVersion is the oldest systemd that units are written for, Debian 12's.
const MinSystemdVersion = 252

// Validate returns nil if units can be written for a, else every InputError found, joined. Nothing
// that a data path cannot do is let through to be ignored later.
func (a App) Validate() error {
	var found inputErrors
	_, err := ParseName(string(a.Name))
	found.add(err)
	_, err = ExecLine(a.Command)
	found.add(err)
	a.checkListeners(&found)
	a.checkServer(&found)
	for i := range table {
		table[i].validate(a, &found)
	}
	return found.err()
}

// checkReady checks what makes an instance ready.
func (a App) checkReady(found *inputErrors) {
	typ, typed := a.Property("Type")
	switch {
	case a.Ready == ReadyExec, a.Ready == ReadyListen:
	case (a.Ready == ReadyNode || a.Ready == ReadyMessage) && a.Kind == KindNode:
	case a.Ready == ReadyMessage:
		found.addf("--ready=notify", "--ready=message is for programs for Node.js; others send READY=1 (sd_notify(3))")
	case a.Ready == ReadyNotify:
		if typed && typ != "notify" {
			found.addf("", "--ready=notify does not go with --property=Type=%s", typ)
		}
	case a.Ready == "tcp":
		found.addf("--ready=listen", "--ready=tcp is --ready=listen here: the instance accepts a TCP connection, which the balancer makes to it alone")
	case strings.HasPrefix(a.Ready, ReadyHTTP+"/") && isText(a.Ready) && !strings.ContainsAny(a.Ready, " \t\r\n"):
	default:
		found.addf("--ready=http:/health", "--ready= must be listen, notify, exec, message or http:/PATH, got %q", a.Ready)
	}
}

func (a App) checkSurge(found *inputErrors) {
	if n, err := strconv.Atoi(a.Surge); a.Surge != "all" && (err != nil || n < 0 || n > MaxInstances) {
		found.addf("--surge=1", "--surge= must be a number from 0 to %d or all, got %q", MaxInstances, a.Surge)
	}
}

// ReadyOrDefault is what makes an instance ready: what was asked for, else what its Type= says,
// else that it accepts a connection.
func (a App) ReadyOrDefault() string {
	if a.Ready != "" && a.Ready != ReadyNode {
		return a.Ready
	}
	switch typ, typed := a.Property("Type"); {
	case typ == "notify":
		return ReadyNotify
	case typed:
		return ReadyExec
	}
	if a.Kind == KindNode && a.DataPath() == PathHandoff {
		return ReadyNode
	}
	return ReadyListen
}

func (a App) checkListeners(found *inputErrors) {
	if len(a.Listen) == 0 {
		found.addf("--listen=3000", "--listen= is missing")
	}
	for _, l := range a.Listen {
		switch {
		case l.IsUnix():
		case l.Port == 0:
			found.addf("", "--listen=%s has no port", l)
		case a.UserUnits && l.Port < 1024:
			found.addf("--listen="+Listen{Addr: l.Addr, Port: l.Port%1000 + 8000}.String(), "--listen=%s is a port below 1024, which a user's units cannot open", l)
		}
	}
	found.add(CheckListen(a.Listen))
}

func (a App) checkEnvironment(found *inputErrors) {
	for _, assignment := range a.Environment {
		found.add(assignment.Check())
	}
}

func (a App) checkEnvironmentFiles(found *inputErrors) {
	for _, file := range a.EnvironmentFiles {
		if problem := rawPathProblem(strings.TrimPrefix(file, "-")); problem != "" {
			found.addf("", "--env-file= %s, got %q", problem, file)
		}
	}
}

func (a App) checkWorkingDirectory(found *inputErrors) {
	if problem := rawPathProblem(a.WorkingDirectory); problem != "" {
		found.addf("", "--working-directory= %s, got %q", problem, a.WorkingDirectory)
	}
}

func (a App) checkProperties(found *inputErrors) {
	for _, p := range a.Properties {
		found.add(p.check(a))
	}
	if dynamic, ok := a.Property("DynamicUser"); ok && !Truth(dynamic) && a.User == "" && !a.UserUnits {
		found.addf("--user=USER", "--property=DynamicUser=%s needs --user=, which names the user of the instances", dynamic)
	}
}

// DrainTimeoutOrDefault is how long a stopping instance may finish its connections.
func (a App) DrainTimeoutOrDefault() time.Duration {
	return cmp.Or(a.DrainTimeout, DefaultDrainTimeout)
}

// stopMargin is what a drain command has for its way beyond the drain time-out.
const stopMargin = 15 * time.Second

// StopTimeout is TimeoutStopSec= of the instances.
func (a App) StopTimeout() time.Duration { return a.DrainTimeoutOrDefault() + stopMargin }

// LongestStop is how long the stop of an instance may last: PID 1 grants TimeoutStopSec= to the drain
// command, and again to the program after its signal.
func (a App) LongestStop() time.Duration { return 2 * a.StopTimeout() }

// StartTimeoutOrDefault is how long an instance may take to get ready.
func (a App) StartTimeoutOrDefault() time.Duration {
	return cmp.Or(a.StartTimeout, DefaultStartTimeout)
}

func (a App) systemdVersion() int { return cmp.Or(a.SystemdVersion, MinSystemdVersion) }

// Property returns the value of the last property named key, which is the one that counts for a
// setting with one value; false if there is none.
func (a App) Property(key string) (value string, ok bool) {
	for _, p := range a.Properties {
		if p.Key == key {
			value, ok = p.Value, true
		}
	}
	return value, ok
}

// HasOwnFiles reports whether a property gives the instances other files at some paths than this
// machine has there.
func (a App) HasOwnFiles() bool {
	return a.hasProperty("RootDirectory", "RootImage", "BindPaths", "BindReadOnlyPaths", "MountImages", "ExtensionImages", "ExtensionDirectories")
}

// HasOwnView reports whether a property gives the instances other files, or other rights to them,
// than this machine shows.
func (a App) HasOwnView() bool {
	return a.HasOwnFiles() || a.hasProperty("TemporaryFileSystem", "AmbientCapabilities", "DynamicUser")
}

func (a App) hasProperty(keys ...string) bool {
	return slices.ContainsFunc(a.Properties, func(p Property) bool { return slices.Contains(keys, p.Key) })
}

// Warnings lists what works but with a drawback that the user should know, each one line that
// begins with what it is about.
func (a App) Warnings() []string {
	var warnings []string
	if warning, ok := a.handoffWarning(); ok {
		warnings = append(warnings, warning)
	}
	if program.Server(a.Command) == "uvicorn" && !slices.ContainsFunc(a.Command, func(arg string) bool { return strings.HasPrefix(arg, "--timeout-graceful-shutdown") }) {
		warnings = append(warnings, "the command lets streams that do not end, such as server-sent events, hold a reload for "+
			FormatTimeSpan(a.DrainTimeoutOrDefault())+" of each instance: uvicorn --timeout-graceful-shutdown 10 ends them")
	}
	for _, l := range a.Listen {
		if l.Addr.Zone() != "" {
			// Tried on 252 and 257: the scope is looked up while the unit is loaded, and the line
			// is ignored without it.
			warnings = append(warnings, "--listen="+l.String()+" is ignored by systemd if "+l.Addr.Zone()+" is missing when it loads the unit")
		}
	}
	for i, arg := range a.Command {
		if !isText(arg) {
			// Tried on 252 and 257: PID 1 executes it as given, but cannot put it into a D-Bus
			// message.
			warnings = append(warnings, "argument "+strconv.Itoa(i)+" of the command is not UTF-8: \"systemctl status\" and \"systemctl show\" of "+
				a.Name.Instance(1)+" will fail with \"Invalid argument\"")
		}
	}
	return warnings
}
