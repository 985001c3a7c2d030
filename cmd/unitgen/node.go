package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
)

// setKind makes a command that runs on Node.js an app of that kind, unless --kind= says otherwise, now or before.
func (c *command) setKind(a *app.App) {
	o := c.options
	commanded := o.hasCommand || strings.Contains(o.name, "/")
	automatic := a.Kind == "" || a.Kind == app.KindNode && !o.given["kind"]
	if !automatic || !commanded && !o.given["kind"] && a.Kind != "" || len(a.Command) == 0 {
		return
	}
	if !commanded && !o.given["kind"] {
		return // an app that exists keeps what it is
	}
	a.Kind = ""
	if runsNode(a.Command) {
		a.Kind = app.KindNode
	}
}

// runsNode says whether argv starts Node.js: by its name, by env(1), or as a script for it.
func runsNode(argv []string) bool {
	if isNode(argv[0]) {
		return true
	}
	if filepath.Base(argv[0]) == "env" {
		i := slices.IndexFunc(argv[1:], func(word string) bool { return !strings.HasPrefix(word, "-") && !strings.Contains(word, "=") })
		return i >= 0 && isNode(argv[1+i])
	}
	return slices.ContainsFunc(shebang(argv[0]), isNode)
}

// isNode goes by the name of a program: node, nodejs, node22.
func isNode(program string) bool {
	switch strings.TrimRight(filepath.Base(program), "0123456789.-") {
	case "node", "nodejs":
		return true
	}
	return false
}

// shebang returns the words of a script's first line after "#!"; none for other files and those that cannot be read.
func shebang(path string) []string {
	f, err := openRegular(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	line, _ := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n') // BINPRM_BUF_SIZE
	line, script := strings.CutPrefix(line, "#!")
	if !script {
		return nil
	}
	return strings.Fields(line)
}

// nodeCommand replaces what would come between PID 1 and Node.js: a package manager that runs a script of package.json,
// and options of node that make it start the program as a child. The channel to the balancer ends at the first Node
// process, and package managers are such themselves.
func (c *command) nodeCommand(argv []string) ([]string, error) {
	if c.options.given["kind"] && c.options.kind != string(app.KindNode) && c.options.kind != "" {
		return argv, nil
	}
	switch manager := filepath.Base(argv[0]); manager {
	case "npm", "yarn", "pnpm":
		var err error
		if argv, err = c.packageScript(manager, argv[1:]); err != nil {
			return nil, err
		}
	case "tsx":
		return nil, inputf("", "tsx starts the program as its child, so the balancer cannot reach it; "+
			"let node load it: -- node --import tsx SCRIPT")
	case "npx", "nodemon":
		return nil, inputf("", "%s starts the program as its child, so the balancer cannot reach it; "+
			"give the node command itself: -- node SCRIPT", manager)
	}
	if isNode(argv[0]) {
		return argv, checkNodeOptions(argv)
	}
	return argv, nil
}

// checkNodeOptions refuses the options of node that run no script, or not in this process.
func checkNodeOptions(argv []string) error {
	for _, word := range argv[1:] {
		option, _, _ := strings.Cut(word, "=")
		switch option {
		case "--watch", "--watch-path", "--watch-preserve-output":
			return inputf("", "node %s starts the program as its child, so the balancer cannot reach it; "+
				"leave it out, and run systemctl reload when the program has changed", option)
		case "-e", "--eval", "-p", "--print", "-pe", "-i", "--interactive", "--test", "--run":
			return inputf("", "node %s is not possible here; put the program into a file: -- node SCRIPT", option)
		}
		if !strings.HasPrefix(word, "-") || word == "-" || word == "--" {
			return nil
		}
	}
	return nil
}

// packageScript resolves "npm start", "yarn run serve" and the like by the package.json of the app's directory.
func (c *command) packageScript(manager string, words []string) ([]string, error) {
	name, rest, ok := scriptName(manager, words)
	if !ok {
		return nil, inputf("", "%q is no command that runs a script of package.json; give the node command itself: -- node SCRIPT",
			strings.Join(append([]string{manager}, words...), " "))
	}
	dir := c.commandDir()
	if c.options.workingDirectory != "" {
		dir = c.absolute(c.options.workingDirectory)
	}
	file := filepath.Join(dir, "package.json")
	text, err := readText(file)
	if err != nil {
		return nil, inputf("", "%s %s needs %s, which cannot be read; give the node command itself: -- node SCRIPT", manager, name, file)
	}
	var pkg struct{ Scripts map[string]string }
	if err := json.Unmarshal([]byte(text), &pkg); err != nil {
		return nil, inputf("", "%s cannot be read: %v", file, err)
	}
	script, ok := pkg.Scripts[name]
	if !ok && name == "start" {
		if _, err := os.Stat(filepath.Join(dir, "server.js")); err == nil {
			script, ok = "node server.js", true // as npm does
		}
	}
	if !ok {
		return nil, inputf("", "%s has no script %q", file, name)
	}
	for _, hook := range []string{"pre" + name, "post" + name} {
		if pkg.Scripts[hook] != "" {
			return nil, inputf("", "script %q of %s has a %q, which would not run; give the node command itself, "+
				"and the rest by -p ExecStartPre=", name, file, hook)
		}
	}
	argv, err := c.plainNode(name, script, file)
	return append(argv, rest...), err
}

// scriptName takes the name of the script and its further arguments off a package manager's words.
func scriptName(manager string, words []string) (name string, rest []string, ok bool) {
	if len(words) > 0 && (words[0] == "run" || words[0] == "run-script") {
		words = words[1:]
	} else if len(words) > 0 && manager == "npm" && words[0] != "start" {
		return "", nil, false // a command of npm's own
	}
	if len(words) == 0 || strings.HasPrefix(words[0], "-") {
		return "", nil, false
	}
	name, rest = words[0], words[1:]
	if len(rest) > 0 && rest[0] == "--" {
		rest = rest[1:]
	}
	return name, rest, true
}

// plainNode takes a script of package.json apart if it is "node …" and nothing that only a shell understands.
func (c *command) plainNode(name, script, file string) ([]string, error) {
	words := strings.Fields(script)
	plain := len(words) > 0 && !strings.ContainsAny(script, "|&;<>()$`\\\"'*?[]{}~!#\n")
	var env []string
	for plain && len(words) > 0 && strings.Contains(words[0], "=") && !strings.HasPrefix(words[0], "-") {
		env, words = append(env, "--env="+words[0]), words[1:]
	}
	switch {
	case plain && len(env) == 0 && len(words) > 1 && isNode(words[0]):
		return words, nil
	case plain && len(words) > 1 && isNode(words[0]):
		return nil, inputf(c.sameApp(env)+" -- "+strings.Join(words, " "),
			"script %q of %s sets its environment: %q", name, file, script)
	case plain && len(words) > 0 && isExecutable(filepath.Join(filepath.Dir(file), "node_modules/.bin", words[0])):
		// Where the command stands counts from here, whatever --working-directory= says.
		words[0] = app.ShellWord("./" + filepath.Join(c.options.workingDirectory, "node_modules/.bin", words[0]))
		if filepath.IsAbs(c.options.workingDirectory) {
			words[0] = words[0][len("./"):]
		}
		return nil, inputf(c.sameApp(env)+" -- "+strings.Join(words, " "),
			"script %q of %s is no plain node command: %q", name, file, script)
	}
	return nil, inputf("", "script %q of %s is no plain node command: %q; give the node command itself: -- node SCRIPT", name, file, script)
}

// sameApp is the command line so far without its command, with options added.
func (c *command) sameApp(options []string) string {
	words := []string{"unitgen", app.ShellWord(c.options.name)}
	if c.options.workingDirectory != "" {
		words = append(words, app.ShellWord("--working-directory="+c.options.workingDirectory))
	}
	return strings.Join(append(words, options...), " ")
}

// realNode returns the node that path stands for. Version managers (nodenv, asdf, volta, mise) put a script or a link to a
// program of theirs in its place, which picks one by the user's directory and environment; an instance has neither.
func (c *command) realNode(ctx context.Context, path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil || isNode(target) && shebang(target) == nil {
		return path, nil
	}
	real, err := c.env.nodePath(ctx, path)
	if err != nil {
		return "", &fault{fmt.Errorf("ask %s for the node that it stands for: %w", path, err), "give the path of node itself"}
	}
	if !filepath.IsAbs(real) || !isExecutable(real) {
		return "", inputf("", "%s stands for %q, which is not a program", path, real)
	}
	return real, nil
}

// nodeAnswer bounds the start of a node by a version manager, which may look for the wanted version in several places.
const nodeAnswer = 20 * time.Second

// askNode runs a node and returns the path of its program.
func askNode(ctx context.Context, program string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, nodeAnswer)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "-p", "process.execPath").Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		line, _, _ := strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n")
		return "", fmt.Errorf("%w: %s", err, line)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return strings.TrimSpace(string(out)), err
}
