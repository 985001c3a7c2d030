package doctor

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
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
		case "Restart", "StartLimitIntervalSec", "StartLimitInterval":
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
		case "Restart", "StartLimitIntervalSec", "StartLimitInterval":
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
		case "FlushPending":
			return "connections that wait are dropped"
		case "StartLimitIntervalSec", "StartLimitInterval", "TriggerLimitIntervalSec", "TriggerLimitBurst":
			return "a few starts in a row close the port for good"
		}
	case app.RoleControl, app.RoleJoin:
		switch key {
		case "ListenStream", "SocketMode", "Accept", "Service", "ExecStart", "RemainAfterExit":
			return "the units cannot talk to the balancer, or others can"
		case "StartLimitIntervalSec", "StartLimitInterval", "TriggerLimitIntervalSec", "TriggerLimitBurst":
			return "a few starts in a row keep the unit down"
		}
	}
	return ""
}

// section is where PID 1 reads a key that broken knows; it ignores the key elsewhere.
func section(role app.Role, key string) string {
	switch {
	case key == "PartOf", key == "BindsTo", strings.HasPrefix(key, "StartLimit"):
		return "Unit"
	case role == app.RoleSocket, role == app.RoleInstanceSocket, role == app.RoleControl:
		return "Socket"
	}
	return "Service"
}

// overrides is a drop-in and what it is for.
type overrides struct {
	file  string
	roles []app.Role
}

// dropIns reads the app's drop-ins that unitgen did not write, and finds those that break the app.
func (e *examination) dropIns() {
	for _, o := range e.overrides() {
		text, err := regular.Read(o.file, app.MaxFile)
		if err == nil && !strings.HasPrefix(text, plan.Header) {
			e.dropIn(o.file, text, o.roles)
		}
	}
}

// overrides lists the drop-ins that PID 1 reads for the app's units, in its order: those of a unit
// by its name, its template and the beginnings of its name, then those of all units of its type
// (unit_file_find_dropin_paths() in src/shared/dropin.c). Of two files of one name it reads the
// first, and so a link to /dev/null hides the others.
func (e *examination) overrides() []overrides {
	type hidden struct {
		role app.Role
		name string
	}
	read := make(map[hidden]bool)
	var all []overrides
	collect := func(matches func(directory string) (roles []app.Role, one bool)) {
		for _, dir := range e.Live.Site.Dirs() {
			entries, _ := os.ReadDir(dir) // most are not there
			for _, entry := range entries {
				directory, ok := strings.CutSuffix(entry.Name(), ".d")
				if !ok {
					continue
				}
				roles, one := matches(directory)
				if len(roles) == 0 {
					continue
				}
				files, _ := filepath.Glob(filepath.Join(dir, entry.Name(), "*.conf"))
				for _, file := range files {
					o := overrides{file: file}
					for _, role := range roles {
						key := hidden{role, filepath.Base(file)}
						if !read[key] {
							o.roles = append(o.roles, role)
							read[key] = !one
						}
					}
					all = append(all, o)
				}
			}
		}
	}
	collect(func(directory string) ([]app.Role, bool) {
		u, mine := e.name.ParseUnit(directory)
		if !mine {
			return nil, false
		}
		return []app.Role{u.Role}, u.Instance > 0
	})
	collect(func(directory string) ([]app.Role, bool) { return e.rolesOf(directory, beginsLike), false })
	collect(func(directory string) ([]app.Role, bool) { return e.rolesOf(directory, isTypeOf), false })
	return slices.DeleteFunc(all, func(o overrides) bool { return len(o.roles) == 0 })
}

// rolesOf lists the roles of the app's units that have drop-ins in a directory of that name, less
// ".d".
func (e *examination) rolesOf(directory string, has func(directory, unit string) bool) (roles []app.Role) {
	for _, unit := range e.name.Units() {
		if u, ok := e.name.ParseUnit(unit); ok && has(directory, unit) {
			roles = append(roles, u.Role)
		}
	}
	return roles
}

// isTypeOf reports whether a directory is for all units of the unit's type: "service".
func isTypeOf(directory, unit string) bool { return "."+directory == filepath.Ext(unit) }

// beginsLike reports whether a directory is for all units whose names begin like the unit's up to a
// dash: "shop-.service" for shop-api.service, "shop-@.service" for shop-api@.service.
func beginsLike(directory, unit string) bool {
	directoryName, _, directoryHas := strings.Cut(strings.TrimSuffix(directory, filepath.Ext(directory)), "@")
	unitName, _, unitHas := strings.Cut(strings.TrimSuffix(unit, filepath.Ext(unit)), "@")
	return filepath.Ext(directory) == filepath.Ext(unit) && directoryHas == unitHas &&
		len(directoryName) > 1 && strings.HasSuffix(directoryName, "-") && strings.HasPrefix(unitName, directoryName)
}

// dropIn judges one drop-in, of units that have these roles.
func (e *examination) dropIn(file, text string, roles []app.Role) {
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
	} else if slices.Contains(roles, app.RoleInstance) && app.SharesRuntimeDirectory(directories) {
		e.add(edit, "%s sets RuntimeDirectory=, which PID 1 removes under all instances when one stops: "+
			"it needs RuntimeDirectoryPreserve=yes too, or %%i in the name", file)
	}
	if cut := e.cutOff(settings, roles); cut != "" {
		e.add(edit, "%s %s", file, cut)
	}
	var path app.Path
	if e.app != nil {
		path = e.app.DataPath()
	}
	said := make(map[string]bool)
	for _, s := range settings {
		if said[s.Name] || asOurs(s) {
			continue
		}
		var why []string
		for _, role := range roles {
			if w := broken(path, role, s.Name); w != "" && s.Section == section(role, s.Name) && !slices.Contains(why, w) {
				why = append(why, w)
			}
		}
		if len(why) > 0 {
			said[s.Name] = true
			e.add(edit, "%s sets %s=: %s", file, s.Name, strings.Join(why, "; "))
		}
	}
}

// asOurs reports whether a setting says what unitgen's units say already.
func asOurs(s *unit.UnitOption) bool {
	switch s.Name {
	case "StartLimitIntervalSec", "StartLimitInterval", "TriggerLimitIntervalSec":
		span, err := app.ParseTimeSpan(s.Value)
		return err == nil && span == 0
	case "Restart":
		return s.Value == "always"
	}
	return false
}

// cutOff says which limit of a drop-in ends something that has a longer time-out of its own. A
// value that is no time span is PID 1's to complain about.
func (e *examination) cutOff(settings []*unit.UnitOption, roles []app.Role) string {
	if e.app == nil {
		return ""
	}
	instance, shim := slices.Contains(roles, app.RoleInstance), slices.Contains(roles, app.RoleShim)
	drain, start := e.app.DrainTimeoutOrDefault(), e.app.StartTimeoutOrDefault()
	for _, s := range settings {
		limit, err := app.ParseTimeSpan(s.Value)
		if s.Section != "Service" || err != nil || limit <= 0 {
			continue
		}
		option, need := "", time.Duration(0)
		stops, starts := s.Name == "TimeoutStopSec" || s.Name == "TimeoutSec", s.Name == "TimeoutStartSec" || s.Name == "TimeoutSec"
		switch {
		case stops && (instance || shim) && limit < drain:
			option, need = "--drain-timeout=", drain
		case starts && instance && limit < start:
			option, need = "--start-timeout=", start
		case starts && shim:
			return fmt.Sprintf("sets %s=%s, and PID 1 may then end a reload that takes longer", s.Name, s.Value)
		}
		if option != "" {
			return fmt.Sprintf("sets %s=%s, and PID 1 then ends what %s gives %s", s.Name, s.Value, option, app.FormatTimeSpan(need))
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
