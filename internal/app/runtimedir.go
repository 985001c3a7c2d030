package app

import (
	"path"
	"slices"
	"strings"
	"unicode"
)

// PreserveRuntimeDirectory is needed in a unit of instances that share one RuntimeDirectory=. PID 1
// removes the directory when one instance stops (service_enter_dead in src/core/service.c), so each
// reload and each restart of an instance would remove it for the others. A preserved directory
// exists until the next boot.
var PreserveRuntimeDirectory = Property{Key: "RuntimeDirectoryPreserve", Value: "yes"}

// SharesRuntimeDirectory reports whether settings of app@.service give instances a shared directory
// below /run, and do not say whether it outlives an instance.
func SharesRuntimeDirectory(settings []Property) bool {
	shared := false
	for _, p := range settings {
		switch p.Key {
		case "RuntimeDirectoryPreserve":
			return false
		case "RuntimeDirectory":
			shared = shared && p.Value != "" || slices.ContainsFunc(strings.Fields(p.Value), everyInstances)
		}
	}
	return shared
}

// everyInstances says that a name with specifiers is the same for every instance.
func everyInstances(name string) bool {
	own := false
	for i := 0; i+1 < len(name); i++ {
		if name[i] != '%' {
			continue
		}
		i++ // "%%" is a percent sign
		own = own || strings.IndexByte("iInN", name[i]) >= 0
	}
	return !own
}

// TakesRuntimeDirectory reports whether settings of a service make /run/unitgen, or a directory in
// it, the service's own. PID 1 would then give it to the service's user, and remove it with the
// service.
func TakesRuntimeDirectory(settings []Property) bool {
	taken := false
	for _, p := range settings {
		if p.Key == "RuntimeDirectory" {
			taken = p.Value != "" && (taken || claimsUnitgen(p.Value))
		}
	}
	return taken
}

// claimsUnitgen reports whether a value of RuntimeDirectory= names /run/unitgen or a directory in
// it. PID 1 would give it to the program's user (setup_exec_directory in src/core/execute.c), and
// root keeps notes and sockets there.
func claimsUnitgen(value string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(value, func(r rune) bool { return unicode.IsSpace(r) || r == ':' || r == '"' || r == '\'' }),
		func(name string) bool {
			first, _, _ := strings.Cut(path.Clean(name), "/")
			return first == "unitgen"
		})
}
