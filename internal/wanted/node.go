package wanted

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

// setKind makes a command that runs on Node.js an app of that kind, unless --kind= says otherwise,
// now or before.
func (r *Request) setKind(a *app.App) {
	given := r.Given("kind")
	commanded := r.Commanded || strings.Contains(r.Word, "/")
	automatic := a.Kind == "" || a.Kind == app.KindNode && !given
	if !automatic || len(a.Command) == 0 || !commanded && !given { // an app that exists keeps what it is
		return
	}
	a.Kind = ""
	script, _ := program.Script(a.Command[0])
	if program.RunsNode(a.Command, script) && !program.Launches(a.Command) {
		a.Kind = app.KindNode
	}
}

// realNode returns the node that path stands for. Version managers (nodenv, asdf, volta, mise) put
// a script or a link to a program of theirs in its place, which picks one by the user's directory
// and environment; an instance has neither.
func (r *Request) realNode(ctx context.Context, path string) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return path, nil
	}
	if script, _ := program.Script(target); program.IsNode(target) && script == nil {
		return path, nil
	}
	real, err := r.Node(ctx, path)
	if err != nil {
		return "", fault.With(fmt.Errorf("find the node program behind %s: %w", path, err), "give the path of node itself")
	}
	if !filepath.IsAbs(real) || !program.IsExecutable(real) {
		return "", fault.Input("", "%s resolves to %q, which is not a program", path, real)
	}
	return real, nil
}

// nodeAnswer bounds the start of a node by a version manager, which may look for the wanted version
// in several places.
const nodeAnswer = 20 * time.Second

// AskNode runs a node and returns the path of its program.
func AskNode(ctx context.Context, node string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, nodeAnswer)
	defer cancel()
	out, err := exec.CommandContext(ctx, node, "-p", "process.execPath").Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
		line, _, _ := strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n")
		return "", fmt.Errorf("%w: %s", err, line)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return strings.TrimSpace(string(out)), err
}
