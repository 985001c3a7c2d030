package doctor

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/unit"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/regular"
)

// broken is what no longer works when a drop-in sets a key of a unit that unitgen writes; empty for
// the many that are the admin's to set.
func broken(path app.Path, role app.Role, key string) string {
	switch role {
	case app.RoleShim:
		switch key {
		case "ExecStart":
			return "the balancer is another program, or has other options than the settings say"
		case "ExecReload":
			return "systemctl reload does not roll out"
		case "ExecStop", "ExecStopPost":
			return "a stop does not drain the instances and close the port"
		case "Type", "NotifyAccess":
			return "a start does not wait for an instance"
		case "Sockets":
			return "the balancer does not get its sockets"
		case "AmbientCapabilities", "CapabilityBoundingSet":
			return "the balancer may not load its BPF program"
		case "FileDescriptorStoreMax":
			return "a crash of the balancer loses the listeners"
		case "Restart", "StartLimitIntervalSec":
			return "nothing brings the balancer back after a crash"
		case "SystemCallFilter", "RestrictAddressFamilies":
			return "the balancer may be unable to work"
		}
	case app.RoleInstance:
		switch key {
		case "ExecStart":
			return "the program is another one than the settings say"
		case "ExecStop":
			return "an instance is stopped without a drain"
		case "ExecStartPost":
			return "an instance counts as ready before it is"
		case "Type", "NotifyAccess":
			return "--ready= does not decide when an instance is ready"
		case "StandardInput":
			return "the program may get its listener as standard input, which PID 1 then passes in no other way"
		case "NonBlocking":
			return "accept(2) of the program may wait, or fail, where it expects the other: all processes share the flag"
		case "Sockets":
			return "an instance gets other sockets than its own listener"
		case "RemainAfterExit":
			return "an instance whose program has ended counts as up"
		case "PartOf", "BindsTo":
			return "a crash of the balancer restarts the instances"
		case "Restart", "StartLimitIntervalSec":
			return "nothing brings an instance back after a crash"
		}
	case app.RoleSocket, app.RoleInstanceSocket:
		switch key {
		case "FileDescriptorName":
			if role == app.RoleInstanceSocket && path != app.PathHandoff {
				return "" // the program's to know, and the balancer goes by the socket
			}
			return "the service that gets the socket does not recognise it"
		case "DeferAcceptSec":
			return "an instance looks ready, and takes connections, before its program accepts any"
		case "ListenStream", "ReusePort", "Accept", "Service":
			return "the listeners are not one group, to which connections can be steered"
		}
	case app.RoleControl, app.RoleJoin:
		switch key {
		case "ListenStream", "SocketMode", "Accept", "Service", "ExecStart", "RemainAfterExit":
			return "the units cannot talk to the balancer, or others can"
		}
	}
	return ""
}

// section is where PID 1 reads a key that broken knows; it ignores the key elsewhere.
func section(role app.Role, key string) string {
	switch {
	case key == "PartOf", key == "BindsTo", key == "StartLimitIntervalSec":
		return "Unit"
	case role == app.RoleSocket, role == app.RoleInstanceSocket, role == app.RoleControl:
		return "Socket"
	}
	return "Service"
}

// dropIns reads the app's drop-ins that unitgen did not write, and finds those that break the app.
func (e *examination) dropIns() {
	for _, dir := range e.Live.Site.Dirs() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // there is none
		}
		for _, entry := range entries {
			name, ok := strings.CutSuffix(entry.Name(), ".d")
			u, mine := e.name.ParseUnit(name)
			if !ok || !mine {
				continue
			}
			files, _ := filepath.Glob(filepath.Join(dir, entry.Name(), "*.conf"))
			for _, file := range files {
				text, err := regular.Read(file, app.MaxFile)
				if err == nil && !strings.HasPrefix(text, plan.Header) {
					e.dropIn(file, text, u.Role)
				}
			}
		}
	}
}

// dropIn judges one drop-in.
func (e *examination) dropIn(file, text string, role app.Role) {
	edit := "${EDITOR:-vi} " + file
	settings, err := parse(text)
	if err != nil {
		e.add(edit, "%s is not a valid drop-in, and the rest was not read: %v", file, err)
	}
	var directories []app.Property
	for _, s := range settings {
		if s.Section == "Service" && strings.HasPrefix(s.Name, "RuntimeDirectory") {
			directories = append(directories, app.Property{Key: s.Name, Value: s.Value})
		}
	}
	if app.TakesRuntimeDirectory(directories) {
		e.add(edit, "%s sets RuntimeDirectory=, so PID 1 owns /run/unitgen: "+
			"it deletes the files of the balancers there when this unit stops", file)
	} else if role == app.RoleInstance && app.SharesRuntimeDirectory(directories) {
		e.add(edit, "%s sets RuntimeDirectory=, which PID 1 removes under all instances when one stops: "+
			"it needs RuntimeDirectoryPreserve=yes too, or %%i in the name", file)
	}
	var path app.Path
	if e.app != nil {
		path = e.app.DataPath()
	}
	if cut := e.cutOff(settings, role); cut != "" {
		e.add(edit, "%s %s", file, cut)
	}
	said := make(map[string]bool)
	for _, s := range settings {
		why := broken(path, role, s.Name)
		if why == "" || said[s.Name] || s.Section != section(role, s.Name) {
			continue
		}
		said[s.Name] = true
		e.add(edit, "%s sets %s=: %s", file, s.Name, why)
	}
}

// cutOff says which limit of a drop-in ends something that has a longer time-out of its own. A value
// that is no time span is PID 1's to complain about.
func (e *examination) cutOff(settings []*unit.UnitOption, role app.Role) string {
	if e.app == nil || role != app.RoleInstance {
		return ""
	}
	needs := map[string]time.Duration{"TimeoutStopSec": e.app.DrainTimeoutOrDefault(), "TimeoutStartSec": e.app.StartTimeoutOrDefault()}
	options := map[string]string{"TimeoutStopSec": "--drain-timeout=", "TimeoutStartSec": "--start-timeout="}
	for _, s := range settings {
		need, ours := needs[s.Name]
		if limit, err := app.ParseTimeSpan(s.Value); ours && s.Section == "Service" && err == nil && limit > 0 && limit < need {
			return fmt.Sprintf("sets %s=%s, and PID 1 then ends what %s gives %s", s.Name, s.Value, options[s.Name], app.FormatTimeSpan(need))
		}
	}
	return ""
}

// parse reads a unit file as PID 1 does, except that it stops at a line that is not an assignment,
// which PID 1 skips. It removes comments first, as package unit joins a comment that ends in a
// backslash with the next line.
func parse(text string) ([]*unit.UnitOption, error) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if first := strings.TrimLeft(line, " \t"); !strings.HasPrefix(first, "#") && !strings.HasPrefix(first, ";") {
			b.WriteString(line)
		}
	}
	return unit.DeserializeOptions(bytewise{strings.NewReader(b.String())})
}

// bytewise reads a byte at a time: package unit refuses lines of 2,048 bytes if it has as much in
// its buffer, and PID 1's limit is 1 MiB.
type bytewise struct{ r io.Reader }

func (b bytewise) Read(p []byte) (int, error) { return b.r.Read(p[:min(1, len(p))]) }
