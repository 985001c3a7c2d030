// Command chaos breaks a real systemd with unitgen's apps on it, under load, in ways drawn from a
// seed, and checks after each step that nothing is lost and all is as it was. It shows what no test
// of one thing alone does: what comes of two things that fall together.
//
//	go run ./test/chaos -seed 7 -minutes 10 -suite trixie
//	go run ./test/chaos -seed 7 -steps 12-14   # these alone: a step needs none before it
//	go run ./test/chaos -seed 7 -steps 1-50 -dry-run
//
// The plan of a seed is always the same; in which microsecond an act falls is not. Faults are the
// table in faults.go, invariants the one in invariants.go. Load is some 150 requests a second on
// the loopback of a throw-away container. At the first step after which something does not hold,
// the run ends with what that is, the command that repeats the step, and the end of the journal.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("chaos", flag.ExitOnError)
	seed := flags.Uint64("seed", uint64(time.Now().Unix()), "the plan; by default another each time")
	minutes := flags.Float64("minutes", 10, "begin no step later, on each suite")
	suites := flags.String("suite", strings.Join(rig.Suites, ","), "what to boot: bookworm is systemd 252, trixie 257")
	steps := flags.String("steps", "", "`N or N-M`: these steps alone")
	without := flags.String("without", "", "`names` of faults and apps to leave out")
	journal := flags.Bool("journal", false, "print the end of the journal after each step, not only after one that fails")
	dryRun := flags.Bool("dry-run", false, "print the plan (of -steps, or of 20) and do nothing")
	table := flags.Bool("faults", false, "print what faults there are")
	flags.Parse(args)
	if *table {
		for _, f := range faults {
			fmt.Printf("%-16s %s\n", f.name, f.what)
		}
		return nil
	}
	o := options{seed: *seed, length: time.Duration(*minutes * float64(time.Minute)), journal: *journal, out: os.Stdout}
	var err error
	if o.first, o.last, err = parseSteps(*steps); err != nil {
		return err
	}
	if o.without, err = parseNames(*without); err != nil {
		return err
	}
	if *dryRun {
		if o.last == 0 {
			o.last = o.first + 19
		}
		for n := o.first; n <= o.last; n++ {
			fmt.Println(o.draw(n))
		}
		return nil
	}
	for suite := range strings.SplitSeq(*suites, ",") {
		o.suite = suite
		if err := run(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// parseSteps reads "N", "N-M" or nothing, which is all from 1 on.
func parseSteps(text string) (first, last int, err error) {
	if text == "" {
		return 1, 0, nil
	}
	from, to, both := strings.Cut(text, "-")
	if !both {
		to = from
	}
	first, err = strconv.Atoi(from)
	if err == nil {
		last, err = strconv.Atoi(to)
	}
	if err != nil || first < 1 || last < first {
		return 0, 0, fmt.Errorf("-steps=%s: want N or N-M", text)
	}
	return first, last, nil
}

// parseNames reads what to leave out. A name that is none would leave nothing out in silence.
func parseNames(text string) (map[string]bool, error) {
	names := map[string]bool{}
	for name := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		known := slices.ContainsFunc(faults, func(f fault) bool { return f.name == name }) ||
			slices.ContainsFunc(newApps(), func(a *app) bool { return a.name == name })
		if !known {
			return nil, fmt.Errorf("-without=%s: no fault and no app has that name", name)
		}
		names[name] = true
	}
	return names, nil
}
