package app

import (
	"path"
	"slices"
	"strings"
	"unicode"
)

// PreserveRuntimeDirectory is what a unit of instances needs whose RuntimeDirectory= all of them share. PID 1 removes the
// directory when one of them stops (service_enter_dead in src/core/service.c), and so each reload and each restart of an
// instance would take it from the others. What is preserved is gone with the next boot.
var PreserveRuntimeDirectory = Property{Key: "RuntimeDirectoryPreserve", Value: "yes"}

// SharesRuntimeDirectory says whether settings of app@.service give instances a directory below /run that is all theirs, and
// do not say whether it outlives one of them.
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

// TakesRuntimeDirectory says whether settings of a service have PID 1 take /run/unitgen, or a directory in it, for the service's own:
// it would make the service's user its owner, and remove it with the service.
func TakesRuntimeDirectory(settings []Property) bool {
	taken := false
	for _, p := range settings {
		if p.Key == "RuntimeDirectory" {
			taken = p.Value != "" && (taken || claimsUnitgen(p.Value))
		}
	}
	return taken
}

// claimsUnitgen says whether a value of RuntimeDirectory= names /run/unitgen or a directory in it. PID 1 would make the
// program's user its owner (setup_exec_directory in src/core/execute.c), and root keeps notes and sockets there.
func claimsUnitgen(value string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(value, func(r rune) bool { return unicode.IsSpace(r) || r == ':' || r == '"' || r == '\'' }),
		func(name string) bool {
			first, _, _ := strings.Cut(path.Clean(name), "/")
			return first == "unitgen"
		})
}
