package program

import (
	"path"
	"slices"
	"strings"
)

// compilers are runtimes that compile while they run.
var compilers = []string{"node", "nodejs", "deno", "bun", "npm", "npx", "yarn", "pnpm", "electron", "java", "dotnet", "mono",
	"ruby", "bundle", "puma", "rackup", "rails", "php", "php-fpm", "pypy", "luajit", "julia", "erl", "elixir", "iex",
	"wasmtime", "wasmer", "tsx", "ts-node", "nodemon", "yarnpkg", "pnpx", "corepack", "concurrently", "next", "bunx", "pm2-runtime"}

// starters are programs that become, or start, the one that their arguments name.
var starters = []string{"nice", "ionice", "taskset", "numactl", "chrt", "setpriv", "stdbuf", "timeout", "tini", "dumb-init", "catatonit", "exec"}

// Compiles returns the name of the runtime that argv runs on, if it is one that compiles while it
// runs, which MemoryDenyWriteExecute= would kill; else nothing. It goes by names: the program's,
// without a version, the extension of a script, or those in the script's first line, which is
// script as Script has it.
func Compiles(argv, script []string) string {
	if runtime := compiles(Behind(argv)); runtime != "" {
		return runtime
	}
	return compiles(Behind(script))
}

func compiles(argv []string) string {
	if len(argv) == 0 {
		return ""
	}
	program := path.Base(argv[0])
	switch path.Ext(program) {
	case ".js", ".mjs", ".cjs", ".ts":
		return "JavaScript"
	case ".rb":
		return "ruby"
	case ".php":
		return "php"
	case ".smp":
		return program
	}
	if name := Name(program); slices.Contains(compilers, name) {
		return name
	}
	return started(argv)
}

// started is compiles of what a shell's -c or a starter starts: of any command in it that is one. A
// word that only looks like a command costs the program a part of its sandbox; one that is not
// seen, the program.
func started(argv []string) string {
	var words []string
	if text, ok := shellText(argv); ok {
		words = strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\n;&|()'\"`$", r) })
	} else if slices.Contains(starters, path.Base(argv[0])) {
		words = argv[1:]
	}
	for i, word := range words {
		if strings.Contains(word, "=") || strings.HasPrefix(word, "-") {
			continue
		}
		// Alone: what follows a name are its own arguments.
		if runtime := compiles(words[i : i+1]); runtime != "" {
			return runtime
		}
	}
	return ""
}
