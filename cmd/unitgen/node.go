package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/regular"
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
	if runsNode(a.Command) && !launches(a.Command) {
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
	f, err := regular.Open(path)
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

// launchers are programs for Node.js, and options of node, that start another process, which opens the port.
var (
	launchers    = []string{"npm", "npx", "yarn", "yarnpkg", "pnpm", "pnpx", "corepack", "tsx", "ts-node", "nodemon", "concurrently"}
	childOptions = []string{"--watch", "--watch-path", "--watch-preserve-output", "--run", "--test", "-e", "--eval", "-p", "--print", "-pe", "-i", "--interactive"}
)

// launches says whether argv is of Node.js and has its server in another process, or no script: the channel to the balancer is for
// one process that runs a script.
func launches(argv []string) bool {
	if slices.Contains(launchers, filepath.Base(argv[0])) {
		return true
	}
	if !isNode(argv[0]) {
		return false
	}
	for _, word := range argv[1:] {
		option, _, _ := strings.Cut(word, "=")
		switch {
		case slices.Contains(childOptions, option):
			return true
		case !strings.HasPrefix(word, "-") || word == "-" || word == "--":
			return slices.Contains(launchers, strings.TrimSuffix(filepath.Base(word), filepath.Ext(word)))
		}
	}
	return false
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
		return "", fault.With(fmt.Errorf("ask %s for the node that it stands for: %w", path, err), "give the path of node itself")
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
