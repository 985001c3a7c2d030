// Command tally reads the output of "go test -json", mixed with other text, from standard input and prints what a
// person wants to see of it: one line per package, the output of failed tests, the reasons of skipped ones, and at the
// end "N passed, N failed, N skipped". Its exit status is 1 if a test has failed, if none has run, or if one was
// skipped in a package whose path contains the argument of --no-skips=.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	noSkips := flag.String("no-skips", "", "`text` in the paths of packages that must not skip a test")
	flag.Parse()
	ok, err := tally(os.Stdin, os.Stdout, *noSkips)
	if err != nil {
		fmt.Fprintf(os.Stderr, "tally: %v\n", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// event is one line of "go test -json" (go doc test2json). Build output has ImportPath in place of Package.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// counter sums up events. Output is kept per test, and per package under the empty test name, until its end is known.
type counter struct {
	w                       io.Writer
	noSkips                 string
	passed, failed, skipped int
	forbidden               []string        // skipped tests that must not be
	failing                 map[string]bool // packages with a failed test
	output                  map[string]map[string]*strings.Builder
}

func tally(r io.Reader, w io.Writer, noSkips string) (ok bool, err error) {
	c := counter{w: w, noSkips: noSkips, failing: make(map[string]bool), output: make(map[string]map[string]*strings.Builder)}
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
	for _, name := range c.forbidden {
		fmt.Fprintf(w, "skipped, and must not be: %s\n", name)
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", c.passed, c.failed, c.skipped)
	return c.failed == 0 && c.passed > 0 && len(c.forbidden) == 0, nil
}

func (c *counter) add(e event) {
	switch e.Action {
	case "run":
		c.outputOf(e)
	case "output":
		c.outputOf(e).WriteString(e.Output)
	case "build-output":
		fmt.Fprint(c.w, e.Output)
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
		fmt.Fprint(c.w, out)
	case "skip":
		c.skipped++
		fmt.Fprint(c.w, out)
		if c.noSkips != "" && strings.Contains(e.Package, c.noSkips) {
			c.forbidden = append(c.forbidden, e.Package+" "+e.Test)
		}
	}
}

// endPackage prints the package's line. Tests that have begun and not ended, as after a panic or at the time limit,
// have failed; so has a package that fails without any test.
func (c *counter) endPackage(e event) {
	words := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "?   "}
	if e.Action == "fail" {
		for test, out := range c.output[e.Package] {
			fmt.Fprint(c.w, out)
			if test != "" {
				c.failed++
				c.failing[e.Package] = true
			}
		}
		if !c.failing[e.Package] {
			c.failed++
		}
	}
	delete(c.output, e.Package)
	fmt.Fprintf(c.w, "%s %s %.1fs\n", words[e.Action], e.Package, e.Elapsed)
}
