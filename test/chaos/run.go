package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// options are what a run is told.
type options struct {
	seed        uint64
	suite       string
	length      time.Duration // no step begins later
	first, last int           // steps; last zero: no limit
	without     map[string]bool
	journal     bool // print it after each step, not only of one that fails
	out         io.Writer
}

// run boots a system and does the steps of the plan until one fails, the time is over or the last
// one is done.
func run(ctx context.Context, o options) error {
	began := time.Now()
	w, ctx, err := begin(ctx, o.suite, o.without)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "chaos: seed %d on %s: %d apps of %d instances are up after %s\n",
		o.seed, o.suite, len(w.names), instances, time.Since(began).Round(time.Second))
	done := map[string]int{}
	began = time.Now()
	for n := o.first; time.Since(began) < o.length && (o.last == 0 || n <= o.last) && err == nil; n++ {
		s := o.draw(n)
		if len(s.acts) == 0 {
			continue
		}
		if err = errors.Join(w.step(ctx, o, s), context.Cause(ctx)); err == nil {
			if o.journal {
				fmt.Fprintln(o.out, w.tail(s))
			}
			for _, a := range s.acts {
				done[a.fault.name]++
			}
			continue
		}
		err = fmt.Errorf("%s\n%w\nrepeat: make chaos CHAOS_SEED=%d CHAOS_SUITE=%s CHAOS_STEPS=%d%s\n%s",
			s, err, o.seed, o.suite, n, o.leftOut(), w.tail(s))
	}
	fmt.Fprintf(o.out, "chaos: seed %d on %s, %s:", o.seed, o.suite, time.Since(began).Round(time.Second))
	for _, name := range slices.Sorted(maps.Keys(done)) {
		fmt.Fprintf(o.out, " %d %s", done[name], name)
	}
	ended := w.end()
	fmt.Fprintf(o.out, "; requests: %s\n", w.ledger.total())
	for _, f := range w.ledger.lost() {
		fmt.Fprintf(o.out, "chaos: lost: %s\n", f)
	}
	for _, name := range w.names {
		fmt.Fprintf(o.out, "chaos: %s: %s\n", name, w.ledger.counts[name])
	}
	return errors.Join(err, ended)
}

func (o options) draw(n int) step {
	var honest []string
	for _, a := range newApps() {
		if !a.hostile {
			honest = append(honest, a.name)
		}
	}
	return draw(o.seed, n, honest).without(o.without)
}

func (o options) leftOut() string {
	if len(o.without) == 0 {
		return ""
	}
	return " CHAOS_WITHOUT=" + strings.Join(slices.Sorted(maps.Keys(o.without)), ",")
}

// step does all acts of s, each at its time, waits until all have ended, and checks what became of
// the system.
func (w *world) step(ctx context.Context, o options, s step) error {
	began, before := time.Now(), w.ledger.total()
	errs, took := make([]error, len(s.acts)), make([]time.Duration, len(s.acts))
	var acts sync.WaitGroup
	for i, a := range s.acts {
		acts.Go(func() {
			if pause(ctx, a.at) {
				errs[i] = w.do(ctx, s, a)
				took[i] = time.Since(began) - a.at
			}
		})
	}
	acts.Wait()
	err := errors.Join(errs...)
	if err == nil {
		err = w.restore(ctx, s)
	}
	restored, awaited := time.Since(began), ""
	if err == nil {
		_, awaited, err = w.settle(ctx)
	}
	err = errors.Join(err, w.prober.take(s))
	settled := time.Since(began)
	fmt.Fprintf(o.out, "%s: took %s, settled after %s, %d answered\n", s, short(took...), short(settled), w.ledger.total().ok-before.ok)
	if settled-restored > noticeable && awaited != "" {
		fmt.Fprintf(o.out, "\t%s in which %s\n", short(settled-restored), awaited)
	}
	return err
}

// noticeable is how long it may take until all is as it was, before the run says what that waited
// for.
const noticeable = 5 * time.Second

// short prints durations in seconds.
func short(all ...time.Duration) string {
	words := make([]string, len(all))
	for i, d := range all {
		words[i] = fmt.Sprintf("%.1fs", d.Seconds())
	}
	return strings.Join(words, ", ")
}

// do does one act. That it fails is an error unless another act spoils it; that it lies is always
// one.
func (w *world) do(ctx context.Context, s step, a act) error {
	err := a.fault.do(ctx, w, s, a)
	if err == nil || s.spoiled(a) && !errors.As(err, new(lie)) {
		return nil
	}
	return fmt.Errorf("%s: %w", a, err)
}

// restore brings the apps back to the state that each step begins with, by the commands of an
// admin, which must succeed now that nothing else happens.
func (w *world) restore(ctx context.Context, s step) error {
	if err := w.quiet(ctx); err != nil {
		return err
	}
	for _, name := range w.honest {
		if s.has(name, "grow", "shrink") {
			if err := w.scale(ctx, name, instances); err != nil {
				return err
			}
		}
		// A verb that was cancelled may have left something stopped.
		if s.has(name, verbs...) {
			args := []string{"systemctl", "start", name}
			for i := 1; i <= instances; i++ {
				args = append(args, w.apps[name].instance(i))
			}
			if _, err := w.run(ctx, args...); err != nil {
				return err
			}
			w.ledger.open(name)
		}
	}
	return nil
}

// quiet waits until PID 1 has no job and no shim is about to start or end: a reload that meets the
// start after a crash would be merged into that.
func (w *world) quiet(ctx context.Context) error {
	var last error
	for end := time.Now().Add(settleLimit); time.Now().Before(end) && pause(ctx, 100*time.Millisecond); {
		l := &look{units: map[string]map[string]map[string]string{}}
		if last = w.seeUnits(ctx, l); last == nil {
			last = noJobs(w, l)
		}
		for _, name := range w.names {
			now := state(l.units[name][w.apps[name].shim()])
			if last == nil && now != "active" && now != "inactive" {
				last = fmt.Errorf("%s is %s", w.apps[name].shim(), now)
			}
		}
		if last == nil {
			return nil
		}
	}
	return fmt.Errorf("wait until nothing goes on: %w", errors.Join(last, ctx.Err()))
}

// tailLines is how much of the journal a failure shows.
const tailLines = "200"

// tail is the end of the journal of the apps that the step hit, or of all.
func (w *world) tail(s step) string {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	args := []string{"journalctl", "--quiet", "--no-pager", "--output=short-precise", "--lines=" + tailLines, "--unit=init.scope"}
	for _, name := range w.honest {
		if len(s.acts) == 0 || slices.ContainsFunc(s.acts, func(a act) bool { return a.app == name || a.app == "" }) {
			args = append(args, "--unit="+name+"*")
		}
	}
	out, err := w.run(ctx, args...)
	if err != nil {
		return err.Error()
	}
	return out
}
