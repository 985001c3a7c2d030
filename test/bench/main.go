// Bench compares what stands between clients and four instances: nothing (one instance, direct), the kernel's own
// SO_REUSEPORT hash, steering, handing off, and the proxies HAProxy, nginx and systemd-socket-proxyd where they are
// installed. Where there is node, it goes on to compare what shares a port among unchanged programs of Node.js: steering,
// Node's own cluster module, and PM2 if it is in PATH.
//
// All run in one process tree on loopback, in turns, several rounds; what counts is the ratio to "direct" within a round,
// given as the median with its lowest and highest value. Client, balancer and instances share the machine's cores, so a
// ratio of throughputs is one of total CPU in disguise; the CPU of the balancer's own processes and of the instances' stands
// beside it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
)

// instances is how many each target has, but direct and systemd-socket-proxyd, which have one.
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
	rounds := flag.Int("rounds", 7, "rounds, in each of which every target has its turn")
	span := flag.Duration("time", 2*time.Second, "time of one turn")
	clients := flag.Int("clients", 32, "concurrent clients")
	nodeOnly := flag.Bool("node", false, "compare programs of Node.js only")
	only := flag.String("only", "", "measure the first target and those whose name contains this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	sets := []func(context.Context) ([]*target, error){startTargets, startNodeTargets}
	if *nodeOnly {
		sets = sets[1:]
	}
	if err := run(ctx, sets, *rounds, *only, load{span: *span, clients: *clients}); err != nil {
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
	case len(args) == 1 && args[0] == nodeHandOffArg:
		return handOffToNodes
	case len(args) == 2 && args[0] == handOffArg:
		return func() error { return handOff(balance.Strategy(args[1])) }
	}
	return nil
}

func run(ctx context.Context, sets []func(context.Context) ([]*target, error), rounds int, only string, l load) error {
	for _, start := range sets {
		if err := compare(ctx, start, rounds, only, l); err != nil {
			return err
		}
	}
	return nil
}

// compare gives each target its turn in each round.
func compare(ctx context.Context, start func(context.Context) ([]*target, error), rounds int, only string, l load) error {
	started, err := start(ctx)
	defer stopAll(started)
	if err != nil || len(started) == 0 {
		return err
	}
	targets := started[:1:1]
	for _, t := range started[1:] {
		if strings.Contains(t.name, only) {
			targets = append(targets, t)
		}
	}
	for _, t := range targets {
		if err := t.warmUp(ctx); err != nil {
			return fmt.Errorf("warm up %s: %w", t.name, err)
		}
	}
	for _, keep := range []bool{false, true} {
		l.keepAlive = keep
		samples := make(map[string][]sample)
		for round := range rounds {
			order := slices.Clone(targets)
			if round%2 == 1 {
				slices.Reverse(order) // A B … B A, so that a drift of the machine's speed favours nobody
			}
			for _, t := range order {
				s, err := measure(ctx, t, l)
				if err != nil {
					return fmt.Errorf("measure %s: %w", t.name, err)
				}
				samples[t.name] = append(samples[t.name], s)
			}
		}
		report(targets, samples, keep)
	}
	return nil
}

// sample is one turn of one target.
type sample struct {
	perSecond float64
	failed    int
	cpu       spent  // per connection or request
	spread    [2]int // fewest and most of an instance
}

func measure(ctx context.Context, t *target, l load) (sample, error) {
	before, err := t.cpu()
	if err != nil {
		return sample{}, err
	}
	r, err := l.put(ctx, t.address)
	if err != nil {
		return sample{}, err
	}
	after, err := t.cpu()
	if err != nil {
		return sample{}, err
	}
	if ctx.Err() != nil {
		return sample{}, ctx.Err()
	}
	s := sample{perSecond: float64(r.ok) / r.elapsed.Seconds(), failed: r.failed}
	if r.ok > 0 {
		n := time.Duration(r.ok)
		s.cpu = spent{(after.balancer - before.balancer) / n, (after.instances - before.instances) / n}
	}
	s.spread = r.spread()
	return s, nil
}

// report prints a table: ratios to the first target, round by round.
func report(targets []*target, samples map[string][]sample, keepAlive bool) {
	what := "connections"
	if keepAlive {
		what = "requests on kept connections"
	}
	base := samples[targets[0].name]
	fmt.Printf("\n%s, %d rounds\n", what, len(base))
	fmt.Printf("%-22s %12s %26s %14s %15s %8s %8s\n", "TARGET", "PER SECOND", "RATIO TO DIRECT", "BALANCER CPU", "INSTANCES' CPU", "SPREAD", "FAILED")
	for _, t := range targets {
		var rate, ratio, balancer, instances, spread []float64
		failed := 0
		for i, s := range samples[t.name] {
			rate = append(rate, s.perSecond)
			ratio = append(ratio, s.perSecond/base[i].perSecond)
			balancer = append(balancer, float64(s.cpu.balancer)/1e3)
			instances = append(instances, float64(s.cpu.instances)/1e3)
			spread = append(spread, float64(s.spread[1]-s.spread[0]))
			failed += s.failed
		}
		fmt.Printf("%-22s %12.0f %10.2f (%.2f to %.2f) %11.2f µs %12.2f µs %8.0f %8d\n", t.name, median(rate), median(ratio),
			slices.Min(ratio), slices.Max(ratio), median(balancer), median(instances), median(spread), failed)
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
