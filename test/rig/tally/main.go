// Command tally reads the output of "go test -json", mixed with other text, from standard input and
// prints what a person wants to see of it: one line per package, the output of failed tests, the
// reasons of skipped ones, the tests that took most CPU time, once more what each failed test said
// first, and at the end "N passed, N failed, N skipped".
//
// Its exit status is 1 if a test has failed, if none has run, if one was skipped in a package whose
// path contains the argument of --no-skips=, or if tests took more CPU time than --cpu-budget=
// allows. Tests that are left to `make test-all` are counted apart: they are not skipped.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/test/rig"
)

func main() {
	var opts options
	flag.StringVar(&opts.noSkips, "no-skips", "", "`text` in the paths of packages that must not skip a test")
	flag.DurationVar(&opts.budget, "cpu-budget", 0, "CPU `time` that all tests which say theirs may take; 0: any")
	flag.Parse()
	ok, err := tally(os.Stdin, os.Stdout, opts)
	if err != nil {
		fmt.Fprintf(os.Stderr, "tally: %v\n", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

type options struct {
	noSkips string
	budget  time.Duration
}

// dearest is how many tests are listed with their CPU time.
const dearest = 15

// event is one line of "go test -json" (go doc test2json). Build output has ImportPath in place of
// Package.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Key, Value                                string // of an attribute
	Elapsed                                   float64
}

// counter sums up events. Output is kept per test, and per package under the empty test name, until
// its end is known.
type counter struct {
	w                             io.Writer
	noSkips                       string
	passed, failed, skipped, left int
	forbidden                     []string        // skipped tests that must not be
	failing                       map[string]bool // packages with a failed test
	output                        map[string]map[string]*strings.Builder
	costs                         []cost
	failures                      []failure
}

// failure is the beginning of what a failed test said. The whole may be thousands of lines above
// the end, and a place that keeps the end of the output alone has lost it.
type failure struct{ pkg, test, words string }

// cost is the CPU time of one test, without its subtests'.
type cost struct {
	pkg, test string
	cpu       time.Duration
}

func tally(r io.Reader, w io.Writer, opts options) (ok bool, err error) {
	c := counter{w: w, noSkips: opts.noSkips, failing: make(map[string]bool), output: make(map[string]map[string]*strings.Builder)}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		var e event
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
			c.add(e)
		} else {
			fmt.Fprint(w, line)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
	}
	cheap := c.reportCosts(opts.budget)
	for _, name := range c.forbidden {
		fmt.Fprintf(w, "skipped, and must not be: %s\n", name)
	}
	for _, f := range c.failures {
		fmt.Fprintf(w, "failed: %s %s\n%s", f.pkg, f.test, f.words)
	}
	if c.left > 0 {
		fmt.Fprintf(w, "%d left to make test-all\n", c.left)
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", c.passed, c.failed, c.skipped)
	return c.failed == 0 && c.passed > 0 && len(c.forbidden) == 0 && cheap, nil
}

func (c *counter) add(e event) {
	switch e.Action {
	case "run":
		c.outputOf(e)
	case "output":
		c.outputOf(e).WriteString(e.Output)
	case "build-output":
		fmt.Fprint(c.w, e.Output)
	case "attr":
		if seconds, err := strconv.ParseFloat(e.Value, 64); err == nil && e.Key == "cpu" {
			c.costs = append(c.costs, cost{e.Package, e.Test, time.Duration(seconds * float64(time.Second))})
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			c.endPackage(e)
		} else {
			c.endTest(e)
		}
	}
}

func (c *counter) outputOf(e event) *strings.Builder {
	tests := c.output[e.Package]
	if tests == nil {
		tests = make(map[string]*strings.Builder)
		c.output[e.Package] = tests
	}
	if tests[e.Test] == nil {
		tests[e.Test] = new(strings.Builder)
	}
	return tests[e.Test]
}

func (c *counter) endTest(e event) {
	out := c.outputOf(e).String()
	delete(c.output[e.Package], e.Test)
	switch e.Action {
	case "pass":
		c.passed++
	case "fail":
		c.failed++
		c.failing[e.Package] = true
		c.keep(e.Package, e.Test, out)
		fmt.Fprint(c.w, out)
	case "skip":
		if strings.Contains(out, rig.LeftToAll) {
			c.left++
			return
		}
		c.skipped++
		fmt.Fprint(c.w, out)
		if c.noSkips != "" && strings.Contains(e.Package, c.noSkips) {
			c.forbidden = append(c.forbidden, e.Package+" "+e.Test)
		}
	}
}

// said is the beginning of a line that a test logs or fails with.
var said = regexp.MustCompile(`(?m)^ *\w+\.go:\d+: `)

// keep notes what a failed test said, unless it failed by a subtest, which ended before it.
func (c *counter) keep(pkg, test, out string) {
	const lines, columns = 8, 300
	at := said.FindStringIndex(out)
	if at == nil && slices.ContainsFunc(c.failures, func(f failure) bool { return f.pkg == pkg && strings.HasPrefix(f.test, test+"/") }) {
		return
	}
	if at != nil {
		out = out[at[0]:]
	}
	var words strings.Builder
	for line := range strings.Lines(out) {
		fmt.Fprintf(&words, "%.*s\n", columns, strings.TrimSuffix(line, "\n"))
		if strings.Count(words.String(), "\n") == lines {
			break
		}
	}
	c.failures = append(c.failures, failure{pkg, test, words.String()})
}

// endPackage prints the package's line. Tests that have begun and not ended, as after a panic or at
// the time limit, have failed; so has a package that fails without any test.
func (c *counter) endPackage(e event) {
	words := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "?   "}
	if e.Action == "fail" {
		for test, out := range c.output[e.Package] {
			fmt.Fprint(c.w, out)
			if test != "" {
				c.failed++
				c.failing[e.Package] = true
				c.keep(e.Package, test, out.String())
			}
		}
		if !c.failing[e.Package] {
			c.failed++
		}
	}
	delete(c.output, e.Package)
	cpu := ""
	if used := c.used(e.Package); used > 0 {
		cpu = fmt.Sprintf(", %.0fs of CPU", used.Seconds())
	}
	fmt.Fprintf(c.w, "%s %s %.1fs%s\n", words[e.Action], e.Package, e.Elapsed, cpu)
}

// used is the CPU time of a package's tests, or of all.
func (c *counter) used(pkg string) (sum time.Duration) {
	for _, t := range c.costs {
		if pkg == "" || t.pkg == pkg {
			sum += t.cpu
		}
	}
	return sum
}

// reportCosts lists the dearest tests, and says whether all are within the budget.
func (c *counter) reportCosts(budget time.Duration) (ok bool) {
	if len(c.costs) == 0 {
		return true
	}
	sum := c.used("")
	slices.SortStableFunc(c.costs, func(a, b cost) int { return cmp.Compare(b.cpu, a.cpu) })
	fmt.Fprintf(c.w, "%.0fs of CPU under systemd, most of it by\n", sum.Seconds())
	for _, t := range c.costs[:min(dearest, len(c.costs))] {
		fmt.Fprintf(c.w, "%8.1fs %s %s\n", t.cpu.Seconds(), t.pkg, t.test)
	}
	if budget == 0 || sum <= budget {
		return true
	}
	fmt.Fprintf(c.w, "tests took %.0fs of CPU, %.0fs more than the budget of %s\n"+
		"hint: make the tests above cheaper (two instances, a lower rate, one exact count in place of repetition), run them on the\n"+
		"newest systemd alone, or leave a proof by repetition to make test-all: rig.Long, rig.All. The budget is set in .ci/run.\n",
		sum.Seconds(), (sum - budget).Seconds(), budget)
	return false
}
