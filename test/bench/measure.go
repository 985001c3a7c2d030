package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// measure is a kind of turn: what the clients do.
type measure struct {
	Name        string
	mode        string // of load/client.c
	connections int
	rate        int // requests per second; 0: as many as there can be
	bulk        bool
}

var measures = []measure{
	{Name: "connections", mode: "conn", connections: 64},
	{Name: "requests64", mode: "keep", connections: 64},
	{Name: "requests1000", mode: "keep", connections: 1000},
	{Name: "pacedConnections", mode: "conn", connections: 64, rate: 1000},
	{Name: "pacedRequests", mode: "keep", connections: 64, rate: 5000},
	{Name: "bulk", mode: "bulk", connections: 4, bulk: true},
}

// slowly divides the fixed rates for slow programs.
const slowly = 5

// idleConnections is how many connections are open while memory is looked at. It stays below
// nginx's and systemd-socket-proxyd's limits as they are set here.
const idleConnections = 4000

// foreignLimit is the share of the processors that others may take in a turn that counts, and
// attempts how often a turn is measured until it is kept with its mark.
const (
	foreignLimit = 0.1
	attempts     = 3
)

// sample is one turn of one target.
type sample struct {
	PerSecond float64 // connections, requests or bytes
	Failed    int
	CPU       spent            // of one connection or request, or of a gigabyte
	Latency   [3]time.Duration // p50, p99, p99.9
	Spread    [2]int           // the fewest and the most connections of an instance
	Foreign   float64          // share of the processors that others took
}

// series are the samples of one target in one measure, a round each.
type series []sample

// result is what came out for a set: samples by measure and target, in the order of the targets.
type result struct {
	Set     string
	Title   string
	Targets []string
	Series  map[string]map[string]series
	Idle    map[string]float64 // bytes of the balancer's memory for an idle connection; none for targets without a balancer
	Ended   []string           // targets whose balancer has ended under the load
	Dropped int                // turns that were measured again
	Rates   map[string]int     // by measure, those that are fixed
}

// compare gives each target of a set its turn in each round of each measure.
func (b bench) compare(ctx context.Context, s set) (result, error) {
	r := result{Set: s.name, Title: s.title, Series: make(map[string]map[string]series), Idle: make(map[string]float64), Rates: make(map[string]int)}
	targets, err := s.start(ctx, b.only)
	defer func() {
		for _, t := range targets {
			t.stop()
		}
	}()
	if err != nil {
		return r, err
	}
	for _, t := range targets {
		if err := t.warmUp(ctx); err != nil {
			return r, fmt.Errorf("warm up %s: %w", t.name, err)
		}
		r.Targets = append(r.Targets, t.name)
	}
	for _, m := range measures {
		if m.bulk && !s.bulk {
			continue
		}
		if s.slow {
			m.rate /= slowly
		}
		r.Rates[m.Name] = m.rate
		r.Series[m.Name] = make(map[string]series)
		for round := range b.rounds {
			order := slices.Clone(targets)
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, t := range order {
				one, dropped, err := b.turn(ctx, t, m)
				if err != nil {
					return r, fmt.Errorf("measure %s of %s: %w", m.Name, t.name, err)
				}
				r.Dropped += dropped
				r.Series[m.Name][t.name] = append(r.Series[m.Name][t.name], one)
			}
		}
		fmt.Printf("%s: %s done\n", s.title, m.Name)
	}
	for _, t := range targets {
		if len(t.balancer) == 0 {
			continue
		}
		switch n, err := t.idleMemory(ctx); {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH): // a peer that crashes is a result too, and the others' stay
			fmt.Printf("%s: %s has ended under the load\n", s.title, t.name)
			r.Ended = append(r.Ended, t.name)
		case err != nil:
			return r, fmt.Errorf("measure memory of %s: %w", t.name, err)
		default:
			r.Idle[t.name] = n
		}
	}
	return r, nil
}

// turn measures once, and again while others take the processors.
func (b bench) turn(ctx context.Context, t *target, m measure) (s sample, dropped int, err error) {
	for dropped = range attempts {
		if s, err = t.once(ctx, m, b.span); err != nil || s.Foreign <= foreignLimit {
			return s, dropped, err
		}
	}
	return s, dropped, nil
}

// once is one turn.
func (t *target) once(ctx context.Context, m measure, span time.Duration) (sample, error) {
	ours, err := t.cpu()
	if err != nil {
		return sample{}, err
	}
	all, err := machineCPU()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	a, err := t.load(ctx, m, span)
	if err != nil {
		return sample{}, err
	}
	elapsed := time.Since(began)
	allAfter, err := machineCPU()
	if err != nil {
		return sample{}, err
	}
	after, err := t.cpu()
	if err != nil {
		return sample{}, err
	}
	used := spent{after.Balancer - ours.Balancer, after.Instances - ours.Instances, time.Duration(a.CPU)}
	return a.sample(m, used, (allAfter-all-used.all()).Seconds()/(elapsed.Seconds()*cores())), nil
}

// account is the line of load/client.c.
type account struct {
	OK, Failed     int
	Bytes          float64
	NS, CPU        int64
	P50, P99, P999 int64
	Answers        map[string]int
}

func (a account) sample(m measure, used spent, foreign float64) sample {
	n, units := float64(a.OK), float64(a.OK)
	if m.bulk {
		n, units = a.Bytes, a.Bytes/1e9
	}
	s := sample{PerSecond: n / (float64(a.NS) / 1e9), Failed: a.Failed, Foreign: max(foreign, 0),
		Latency: [3]time.Duration{time.Duration(a.P50), time.Duration(a.P99), time.Duration(a.P999)}}
	if units > 0 {
		s.CPU = spent{time.Duration(float64(used.Balancer) / units), time.Duration(float64(used.Instances) / units),
			time.Duration(float64(used.Client) / units)}
	}
	first := true
	for _, n := range a.Answers {
		if first {
			s.Spread = [2]int{n, n}
		}
		first = false
		s.Spread[0], s.Spread[1] = min(s.Spread[0], n), max(s.Spread[1], n)
	}
	return s
}

// clientCommand is the load on a target.
func (t *target) clientCommand(ctx context.Context, m measure, span time.Duration) *exec.Cmd {
	host, port, _ := strings.Cut(t.address, ":")
	c := exec.CommandContext(ctx, clientProgram, m.mode, host, port, strconv.Itoa(m.connections),
		strconv.FormatInt(span.Milliseconds(), 10), strconv.Itoa(m.rate), t.protocol)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// load puts one turn of load on a target.
func (t *target) load(ctx context.Context, m measure, span time.Duration) (a account, err error) {
	out, err := t.clientCommand(ctx, m, span).Output()
	if err != nil {
		return a, fmt.Errorf("run the load: %w", err)
	}
	if err := json.Unmarshal(out, &a); err != nil {
		return a, fmt.Errorf("parse the load's line: %w", err)
	}
	return a, ctx.Err()
}

// idleMemory is what an open connection on which nothing happens costs the balancer in memory. It
// wraps fs.ErrNotExist or ESRCH if the balancer has ended.
func (t *target) idleMemory(ctx context.Context) (float64, error) {
	before, err := memoryOf(t.balancer)
	if err != nil {
		return 0, err
	}
	c := t.clientCommand(ctx, measure{mode: "idle", connections: idleConnections}, 20*time.Second)
	in, err := c.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := c.Start(); err != nil {
		return 0, err
	}
	defer c.Wait()
	defer in.Close()
	var a account
	if err := json.NewDecoder(out).Decode(&a); err != nil {
		return 0, fmt.Errorf("parse the load's line: %w", err)
	}
	if a.OK == 0 {
		return 0, fmt.Errorf("no connection was answered, %d failed", a.Failed)
	}
	after, err := memoryOf(t.balancer)
	return (after - before) / float64(a.OK), err
}
