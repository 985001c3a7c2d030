package templates

import (
	"path"
	"slices"
	"strings"
)

// starters are programs that become, or start, the one that their arguments name.
var starters = []string{"nice", "ionice", "taskset", "numactl", "chrt", "setpriv", "stdbuf", "timeout", "tini", "dumb-init", "catatonit", "exec"}

// shells run what follows -c.
var shells = []string{"sh", "dash", "bash", "ash", "zsh", "ksh", "busybox"}

// startedRuntime is compilingRuntime of what a shell's -c or a starter starts: of any command in it that is one. A word that only looks
// like a command costs the program a part of its sandbox; one that is not seen, the program.
func startedRuntime(command []string) string {
	program := path.Base(command[0])
	words := command[1:]
	switch {
	case slices.Contains(starters, program):
	case slices.Contains(shells, program):
		at := slices.IndexFunc(words, func(word string) bool {
			return strings.HasSuffix(word, "c") && strings.HasPrefix(word, "-") && !strings.HasPrefix(word, "--")
		})
		if at < 0 || at+1 >= len(words) {
			return ""
		}
		words = strings.FieldsFunc(words[at+1], func(r rune) bool { return strings.ContainsRune(" \t\n;&|()'\"`$", r) })
	default:
		return ""
	}
	for i, word := range words {
		if strings.Contains(word, "=") || strings.HasPrefix(word, "-") {
			continue
		}
		// Alone: what follows a name are its own arguments.
		if runtime := compilingRuntime(words[i : i+1]); runtime != "" {
			return runtime
		}
	}
	return ""
}
