package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/program"
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
	script, _ := program.Script(a.Command[0])
	if program.RunsNode(a.Command, script) && !program.Launches(a.Command) {
		a.Kind = app.KindNode
	}
}

// realNode returns the node that path stands for. Version managers (nodenv, asdf, volta, mise) put a script or a link to a
// program of theirs in its place, which picks one by the user's directory and environment; an instance has neither.
func (c *command) realNode(ctx context.Context, path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return path, nil
	}
	if script, _ := program.Script(target); program.IsNode(target) && script == nil {
		return path, nil
	}
	real, err := c.env.nodePath(ctx, path)
	if err != nil {
		return "", fault.With(fmt.Errorf("find the node program behind %s: %w", path, err), "give the path of node itself")
	}
	if !filepath.IsAbs(real) || !program.IsExecutable(real) {
		return "", inputf("", "%s resolves to %q, which is not a program", path, real)
	}
	return real, nil
}

// nodeAnswer bounds the start of a node by a version manager, which may look for the wanted version in several places.
const nodeAnswer = 20 * time.Second

// askNode runs a node and returns the path of its program.
func askNode(ctx context.Context, node string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, nodeAnswer)
	defer cancel()
	out, err := exec.CommandContext(ctx, node, "-p", "process.execPath").Output()
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
