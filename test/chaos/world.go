package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

// commandLimit ends a command in the container that does not end.
const commandLimit = 150 * time.Second

//go:embed programs
var programs embed.FS

// world is one booted system with all apps under load.
type world struct {
	c      *rig.Container
	apps   map[string]*app
	names  []string // of all apps, in the order of their ports
	honest []string // of those that faults hit
	ledger *ledger
	prober *prober
	calm   *look // how it looked before the first step

	stop    context.CancelFunc // of load and prober
	running sync.WaitGroup
}

// begin boots suite, starts the apps but those left out, and puts load on them. The caller ends it.
// The context that it returns ends when there is no use in going on.
func begin(ctx context.Context, suite string, leftOut map[string]bool) (*world, context.Context, error) {
	c, err := rig.Start(ctx, suite, rig.Options{Disk: diskSize})
	if err != nil {
		return nil, nil, fmt.Errorf("boot container: %w", err)
	}
	w := &world{c: c, apps: map[string]*app{}, ledger: newLedger()}
	ctx, excess := context.WithCancelCause(ctx)
	w.prober = &prober{w: w, excess: excess}
	if err := w.prepare(ctx, leftOut); err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	load, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	w.startLoad(load, &w.running)
	w.running.Go(func() { w.prober.run(load) })
	// With load: what the apps have open under it belongs to how they look.
	if w.calm, _, err = w.settle(ctx); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start apps: %w\n%s", err, w.tail(step{})), w.end())
	}
	return w, ctx, nil
}

// diskSize is that of the container's disk in megabytes: what is needed, as filling it takes memory
// of the host.
const diskSize = 400

// end stops the load and pulls the plug.
func (w *world) end() error {
	w.stop()
	w.running.Wait()
	return w.c.Close()
}

// prepare installs unitgen and the programs, and starts the apps.
func (w *world) prepare(ctx context.Context, leftOut map[string]bool) error {
	root, err := rig.RepoRoot()
	if err != nil {
		return err
	}
	built, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(built)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", built, "./examples/go-http", "./test/chaos/hostile", "./test/chaos/stranger", "./test/chaos/asker")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build programs: %w\n%s", err, out)
	}
	for dst, src := range map[string]string{
		"/usr/bin/unitgen":                 filepath.Join(root, "bin/unitgen"),
		"/usr/lib/unitgen/lbshim":          filepath.Join(root, "bin/lbshim"),
		"/usr/lib/unitgen/lbshim-balancer": filepath.Join(root, "bin/lbshim-balancer"),
		"/usr/lib/unitgen/node/drain.cjs":  filepath.Join(root, "packaging/node/drain.cjs"),
		"/usr/lib/sysusers.d/unitgen.conf": filepath.Join(root, "packaging/sysusers.d/unitgen.conf"),
		strangerProgram:                    filepath.Join(built, "stranger"),
		askerProgram:                       filepath.Join(built, "asker"),
	} {
		if err := w.c.CopyIn(ctx, src, dst, 0o755); err != nil {
			return err
		}
	}
	if _, err := w.run(ctx, "systemd-sysusers"); err != nil {
		return err
	}
	for _, a := range newApps() {
		if leftOut[a.name] {
			continue
		}
		program, err := a.program(root, built)
		if err != nil {
			return err
		}
		if err := w.install(ctx, a, program); err != nil {
			return err
		}
		w.apps[a.name] = a
		w.names = append(w.names, a.name)
		if !a.hostile {
			w.honest = append(w.honest, a.name)
		}
	}
	return nil
}

// program returns the file that the app runs: an example, one of this package, or one just built.
func (a *app) program(root, built string) ([]byte, error) {
	switch a.source {
	case "server":
		return os.ReadFile(filepath.Join(built, "go-http"))
	case "hostile":
		return os.ReadFile(filepath.Join(built, "hostile"))
	case "server.js":
		return os.ReadFile(filepath.Join(root, "examples/node/server.js"))
	}
	return programs.ReadFile("programs/" + a.source)
}
