//go:build integration

// Package programs runs servers that people use, each unchanged and by the one command that
// docs/programs.md has for it, as four instances under a real PID 1. That page is written by these
// tests: go test -update.
//
// What is asserted are counts and states, nothing about speed.
package programs

import (
	"cmp"
	"context"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

var update = flag.Bool("update", false, "write docs/programs.md")

// instances is how many each app has.
const instances = 4

// folder is where the programs of folder srv are in the container, each in its own.
const folder = "/srv/programs"

// TestPrograms runs the programs one after the other on each systemd: many of them want the same
// port. In `make test` these are those for which no root file system of many servers is needed.
func TestPrograms(t *testing.T) {
	rig.EachSuite(t, func(t *testing.T, suite string) {
		rows := table()
		many := rig.All() || wanted(rows)
		if !many && suite != rig.Newest {
			t.Skip(rig.LeftToAll + "systemd of " + suite)
		}
		root := suite
		if many {
			root = rig.Servers(suite)
		}
		s := boot(t, root, many)
		for _, p := range rows {
			if p.newest && suite != rig.Newest {
				continue
			}
			t.Run(p.name, func(t *testing.T) {
				if p.servers {
					rig.Long(t, "it is in the root file system of many servers")
				}
				if p.costly {
					rig.Long(t, "its starts take most of the time")
				}
				rig.Charge(t)
				p.test(t, s)
			})
		}
	})
}

// wanted says that -run has the name of a program that only the root file system of many servers
// has.
func wanted(rows []program) bool {
	run := flag.Lookup("test.run").Value.String()
	for _, p := range rows {
		if p.servers && strings.Contains(run, p.name) {
			return true
		}
	}
	return false
}

// boot is apps.Boot with the programs of this package, and with those of npm in the places that
// their installers choose.
func boot(t *testing.T, root string, many bool) *apps.System {
	t.Helper()
	s := apps.Boot(t, root)
	err := filepath.WalkDir("srv", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			s.MustCopyIn(t, path, filepath.Join(folder, strings.TrimPrefix(path, "srv")), 0o755)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := filepath.Join(t.TempDir(), "server")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", server, "../bind/program")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build program: %v\n%s", err, out)
	}
	s.MustCopyIn(t, server, folder+"/go/server", 0o755)
	if many {
		// A mount and no link: Next.js builds nothing of outside of its project.
		s.MustExec(t, "sh", "-ec", `cd /usr/local/bin
			ln -s /opt/npm/node_modules/.bin/npm /opt/npm/node_modules/.bin/npx /opt/npm/node_modules/@oven/bun-linux-x64-baseline/bin/bun .
			cd /srv/programs; cp /opt/npm/package*.json .; mkdir node_modules; mount --bind /opt/npm/node_modules node_modules`)
	}
	return s
}

// test starts the app and puts it under load.
func (p program) test(t *testing.T, s *apps.System) {
	s.MustExec(t, "sh", "-ec", "mkdir -p "+p.dir()+"; cd "+p.dir()+"\n"+p.prepare)
	a := apps.NewBy(t, s, p.dir(), p.command, p.app(), p.port, instances)
	a.AwaitUp(a.N)
	p.evenly(a)
	p.seesPeers(a)
	p.reload(a)
	p.kill(a)
}

// load puts load on the app as its clients do, so little that the machine is never busy with it.
func (p program) load(a *apps.App, opts rig.LoadOptions) *rig.Load {
	opts.Clients, opts.Rate, opts.Want = cmp.Or(opts.Clients, 4), 60, p.want
	if p.ask != nil {
		opts.Ask = func(ctx context.Context) ([]byte, error) { return p.ask(ctx, a) }
		opts.Rate = 10
	}
	l := a.Load(opts)
	a.T.Cleanup(func() { l.Stop() }) // else the next program on that port would have it
	return l
}

// each is how many connections each instance gets that are counted.
const each = 5

// evenly makes connections one after the other. How many each instance got is the balancer's own
// count.
func (p program) evenly(a *apps.App) {
	a.T.Helper()
	before := steered(a)
	a.Lossless(p.load(a, rig.LoadOptions{Requests: each * a.N, Clients: 1}).Wait())
	for i, n := range steered(a) {
		if got := n - before[i]; got != each {
			a.T.Errorf("instance %d had %d connections, want %d", i, got, each)
		}
	}
}

func steered(a *apps.App) map[int]uint64 {
	a.T.Helper()
	counts := make(map[int]uint64)
	for _, in := range a.Status().Instances {
		counts[in.Instance] = in.Steered
	}
	return counts
}

// seesPeers finds the client's address in what the program logs, once for each request of evenly. A
// program that answers it has been checked at each request.
func (p program) seesPeers(a *apps.App) {
	a.T.Helper()
	if p.peer == "" {
		return
	}
	var text string
	for end := time.Now().Add(apps.Limit); time.Now().Before(end); { // some write their logs when they like
		if p.log == "" {
			text = a.Log(a.Name + "@*")
		} else {
			text = a.MustExec(a.T, "sh", "-c", "cat "+p.log)
		}
		if strings.Count(text, p.peer) >= each*a.N {
			return
		}
	}
	a.T.Errorf("the program has logged %q %d times, want %d:\n%s", p.peer, strings.Count(text, p.peer), each*a.N, text)
}

// reload is systemctl reload under load.
func (p program) reload(a *apps.App) {
	a.T.Helper()
	load := p.load(a, rig.LoadOptions{})
	a.AwaitOK(load, 10)
	a.Reload()
	a.AwaitOK(load, 10)
	r := load.Stop()
	a.Lossless(r)
	a.T.Logf("reload: %s", r)
}

// kill is kill -9 of an instance under load. At most the requests that were with it are lost, one
// of each client.
func (p program) kill(a *apps.App) {
	a.T.Helper()
	const clients = 2
	load := p.load(a, rig.LoadOptions{Clients: clients})
	a.AwaitOK(load, 10)
	pid := a.PID(a.Instance(1))
	a.Signal(a.Instance(1), "KILL")
	a.AwaitNew(a.Instance(1), pid)
	a.AwaitUp(a.N)
	a.AwaitOK(load, 10)
	r := load.Stop()
	a.LostAtMost(r, clients)
	a.T.Logf("kill -9: %s", r)
}

// TestPage compares docs/programs.md with the table.
func TestPage(t *testing.T) {
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "docs/programs.md")
	if *update {
		if err := os.WriteFile(file, []byte(page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != page() {
		t.Errorf("%s is not what these tests run; write it with: go test -tags integration -run TestPage ./test/programs -update", file)
	}
}
