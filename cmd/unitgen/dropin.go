package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/plan"
)

// broken is what no longer works when a drop-in sets a key of a unit that unitgen writes; empty for the many that are the
// admin's to set.
func broken(path app.Path, role app.Role, key string) string {
	switch role {
	case app.RoleShim:
		switch key {
		case "ExecStart":
			return "the balancer is another program, or has other options than the settings say"
		case "ExecReload":
			return "systemctl reload is no rollout"
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
			return "the balancer may be kept from what it does"
		}
	case app.RoleInstance:
		switch key {
		case "ExecStart":
			return "the program is another one than the settings say"
		case "ExecStop":
			return "an instance is stopped without a drain"
		case "ExecStartPost":
			return "an instance counts as ready before it is"
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
			return "what gets the socket does not know it"
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

// examineDropIns reads the drop-ins below dir that are an app's, and not ours, and finds those that defeat what it does.
func (c *command) examineDropIns(dir string, name app.Name, path app.Path) []finding {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // there is none
	}
	var found []finding
	for _, entry := range entries {
		unit, ok := strings.CutSuffix(entry.Name(), ".d")
		u, mine := name.ParseUnit(unit)
		if !ok || !mine {
			continue
		}
		files, _ := filepath.Glob(filepath.Join(dir, entry.Name(), "*.conf"))
		for _, file := range files {
			text, err := readText(file)
			if err != nil || strings.HasPrefix(text, plan.Header) {
				continue
			}
			if app.TakesRuntimeDirectory(directoriesIn(text)) {
				found = append(found, finding{string(name), file + " sets RuntimeDirectory=, with which PID 1 takes /run/unitgen from the balancers: " +
					"its sockets and notes there go when this unit stops", "${EDITOR:-vi} " + file})
			} else if u.Role == app.RoleInstance && app.SharesRuntimeDirectory(directoriesIn(text)) {
				found = append(found, finding{string(name), file + " sets RuntimeDirectory=, which PID 1 removes under all instances when one stops: " +
					"it needs RuntimeDirectoryPreserve=yes too, or %i in the name", "${EDITOR:-vi} " + file})
			}
			for _, key := range keysIn(text) {
				if why := broken(path, u.Role, key); why != "" {
					found = append(found, finding{string(name), file + " sets " + key + "=: " + why, "${EDITOR:-vi} " + file})
				}
			}
		}
	}
	return found
}

// directoriesIn are the lines of a drop-in that decide on directories below /run.
func directoriesIn(text string) []app.Property {
	var all []app.Property
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if key = strings.TrimSpace(key); ok && strings.HasPrefix(key, "RuntimeDirectory") {
			all = append(all, app.Property{Key: key, Value: strings.TrimSpace(value)})
		}
	}
	return all
}

// keysIn lists the keys of a unit file, each once, that are set to something or taken back.
func keysIn(text string) []string {
	var keys []string
	continued := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		inside := continued
		continued = strings.HasSuffix(line, `\`)
		key, _, ok := strings.Cut(line, "=")
		if key = strings.TrimSpace(key); inside || !ok || line[0] == '#' || line[0] == ';' || slices.Contains(keys, key) {
			continue
		}
		keys = append(keys, key)
	}
	return keys
}
