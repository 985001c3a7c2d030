package program

import (
	"path"
	"slices"
	"strings"
)

// IsNode goes by the name of a program: node, nodejs, node22.
func IsNode(program string) bool {
	name := Name(program)
	return name == "node" || name == "nodejs"
}

// RunsNode says whether the process that argv starts becomes Node.js: by its name, by env(1), by a
// shell's exec, or as a script for it. script is the first line of argv's program, as Script has
// it.
func RunsNode(argv, script []string) bool {
	for _, words := range [][]string{Replaced(argv), Behind(script)} {
		if len(words) > 0 && IsNode(words[0]) {
			return true
		}
	}
	return false
}

// launchers are programs for Node.js, and childOptions are options of node, that start another
// process, which opens the port.
var (
	launchers    = []string{"npm", "npx", "yarn", "yarnpkg", "pnpm", "pnpx", "corepack", "tsx", "ts-node", "nodemon", "concurrently"}
	childOptions = []string{"--watch", "--watch-path", "--watch-preserve-output", "--run", "--test", "-e", "--eval", "-p", "--print", "-pe", "-i", "--interactive"}
)

// Launches says whether argv is of Node.js and has its server in another process, or no script: the
// channel to the balancer is for one process that runs a script.
func Launches(argv []string) bool {
	argv = Replaced(argv)
	if len(argv) == 0 {
		return false
	}
	if slices.Contains(launchers, path.Base(argv[0])) {
		return true
	}
	if !IsNode(argv[0]) {
		return false
	}
	for _, word := range argv[1:] {
		option, _, _ := strings.Cut(word, "=")
		switch {
		case slices.Contains(childOptions, option):
			return true
		case !strings.HasPrefix(word, "-") || word == "-" || word == "--":
			return slices.Contains(launchers, strings.TrimSuffix(path.Base(word), path.Ext(word)))
		}
	}
	return false
}
