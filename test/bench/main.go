// Bench compares what stands between clients and four instances, in sets of the same program:
//
//   - a server in C of one read and one write a request: one instance that clients connect to directly, the kernel's own
//     SO_REUSEPORT hash, steering, and the proxies HAProxy, nginx and systemd-socket-proxyd;
//   - a Go program: directly, steered, on the handoff path, and one that opens its own port, steered and behind HAProxy;
//   - an unchanged Node.js program: alone, steered, on the handoff path, behind Node's own cluster module and PM2;
//   - uvicorn, and redis-server, unchanged: alone, steered, and behind HAProxy with a port for each instance. They run from
//     the root file system of many servers ("test/prepare servers") where they are not installed.
//
// What is not installed is left out, with a line. Everything runs in one process tree on loopback.
// Targets take turns, in rounds whose order alternates, so that a drift of the machine's speed
// favours nobody. What counts is the ratio to the set's first target within a round: the median is
// given, with the lowest and the highest. The first target runs twice, as two targets: the ratio of
// the two says how far a ratio can be trusted. A turn in which other programs took the processors
// is measured again.
//
// The clients are a C program that costs less than what it measures (load/client.c). Clients,
// balancer and instances share the processors, so a ratio of throughputs is one of all CPU in
// disguise; the CPU of each of the three stands beside it.
//
// The results are written as Markdown, JSON and SVG.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
)

// instances is how many each target has, but those that are called direct, and
// systemd-socket-proxyd, which have one.
const instances = 4

func main() {
	if child := childOf(os.Args[1:]); child != nil {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, "bench child:", err)
			os.Exit(1)
		}
		return
	}
	runtime.LockOSThread() // children live as long as the thread that started them: the main one
	var b bench
	flag.IntVar(&b.rounds, "rounds", 5, "rounds, in each of which every target has its turn")
	flag.DurationVar(&b.span, "time", time.Second, "time of one turn")
	quick := flag.Bool("quick", false, "two rounds of short turns: figures to see that all works, not to quote")
	flag.StringVar(&b.only, "only", "", "measure the first target of each set, and those whose name contains `text`")
	sets := flag.String("sets", "c,go,node", "which sets, by name: c, go, node, uvicorn, redis")
	out := flag.String("out", "build/bench", "directory of the results")
	flag.Parse()
	if *quick {
		b.rounds, b.span = 2, 250*time.Millisecond
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := b.run(ctx, strings.Split(*sets, ","), *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// childOf is what this program does as a child of itself; nil if it is none.
func childOf(args []string) func() error {
	switch {
	case len(args) == 1 && args[0] == serveArg:
		return func() error { return serve(passedListener) }
	case len(args) == 1 && args[0] == handedArg:
		return func() error { return serve(handed) }
	case len(args) == 2 && args[0] == openArg:
		return func() error { return serve(func() (net.Listener, error) { return net.Listen("tcp4", args[1]) }) }
	case len(args) == 1 && args[0] == nodeHandOffArg:
		return handOffToNodes
	case len(args) == 2 && args[0] == handOffArg:
		return func() error { return handOff(balance.Strategy(args[1])) }
	}
	return nil
}

// set is a program, and what can stand before it.
type set struct {
	name, title string
	bulk        bool // its program answers without end, too
	slow        bool // its program takes a fraction of the fixed rates of the others: slowly
	starts      []func(context.Context) (*target, error)
}

var sets = []set{
	{name: "c", title: "A server in C", bulk: true, starts: []func(context.Context) (*target, error){
		startDirect, startDirectAgain, startHash, startSteer, startBind, startHAProxyUnix, startHAProxyTCP, startNginx, startSocketProxy}},
	{name: "go", title: "A Go program", starts: []func(context.Context) (*target, error){
		startGoDirect, startGoDirectAgain, startGoSteer, startHandoff, startHandoffHash, goOpener.startSteer, goOpener.startHAProxy}},
	{name: "node", title: "An unchanged Node.js program", starts: []func(context.Context) (*target, error){
		startNodeDirect, startNodeDirectAgain, startNodeSteer, startNodeHandoff, startNodeCluster, startPM2}},
	{name: "uvicorn", title: "uvicorn", slow: true, starts: uvicornOpener.starts()},
	{name: "redis", title: "redis-server", starts: redisOpener.starts()},
}

// bench is one run.
type bench struct {
	rounds int
	span   time.Duration
	only   string
}

// run measures the named sets and writes the results into the directory out.
func (b bench) run(ctx context.Context, names []string, out string) error {
	if err := buildPrograms(ctx); err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Dir(clientProgram))
	began := time.Now()
	var results []result
	for _, name := range names {
		found := false
		for _, s := range sets {
			if s.name != name {
				continue
			}
			found = true
			r, err := b.compare(ctx, s)
			if err != nil {
				return err
			}
			results = append(results, r)
		}
		if !found {
			return fmt.Errorf("find set: there is no %q", name)
		}
	}
	return write(out, results, time.Since(began))
}

// The load, the C server and lbshim, which every run compiles again.
var clientProgram, serverProgram, lbshimProgram string

// buildPrograms compiles them into a directory of their own.
func buildPrograms(ctx context.Context) error {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return fmt.Errorf("compile the load: %w (apt-get install gcc libc6-dev)", err)
	}
	source, err := sourceDir()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	for _, name := range []string{"client", "server"} {
		c := exec.CommandContext(ctx, cc, "-O2", "-o", filepath.Join(dir, name), filepath.Join(source, name+".c"))
		if text, err := c.CombinedOutput(); err != nil {
			return errors.Join(fmt.Errorf("compile %s.c: %w: %s", name, err, text), os.RemoveAll(dir))
		}
	}
	clientProgram, serverProgram, lbshimProgram = filepath.Join(dir, "client"), filepath.Join(dir, "server"), filepath.Join(dir, "lbshim")
	if text, err := exec.CommandContext(ctx, "go", "build", "-o", lbshimProgram, "github.com/unitgen/unitgen/cmd/lbshim").CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("build lbshim: %w: %s", err, text), os.RemoveAll(dir))
	}
	return nil
}

// start starts the targets of a set that can be had here; those that were started are returned also
// with an error.
func (s set) start(ctx context.Context, only string) ([]*target, error) {
	var targets []*target
	for i, start := range s.starts {
		t, err := start(ctx)
		if errors.Is(err, exec.ErrNotFound) {
			fmt.Println("left out:", err)
			if i == 0 {
				return targets, nil // without the program there is nothing to compare
			}
			continue
		}
		if t != nil && err == nil && i > 0 && !strings.Contains(t.name, only) {
			t.stop()
			continue
		}
		if t != nil {
			targets = append(targets, t)
		}
		if err != nil {
			return targets, err
		}
	}
	return targets, nil
}
