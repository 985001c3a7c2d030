package rig

import (
	"flag"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

// Suites are the releases that integration tests run on, oldest systemd first.
var Suites = []string{"bookworm", "trixie"}

// Newest is the release on which `make test` runs every test.
const Newest = "trixie"

// Servers names the root file system for Boot that is suite with servers of many kinds, and with
// programs of npm in /opt/npm. Only test/prepare with that name and `make test-all` build it: see
// Long.
func Servers(suite string) string { return "servers-" + suite }

// LeftToAll begins the reason with which a test that only `make test-all` runs is skipped. Command
// tally counts these apart.
const LeftToAll = "make test-all runs this: "

// All says that this is `make test-all`: every test runs on each release, and proofs by repetition
// run at full length. It is the one place that reads UNITGEN_ALL.
func All() bool { return os.Getenv("UNITGEN_ALL") == "1" }

// Long marks a test that only `make test-all` runs, or a -run that has its name; why says what
// makes it dear.
func Long(t testing.TB, why string) {
	t.Helper()
	if !All() && !asked(path.Base(t.Name())) {
		t.Skip(LeftToAll + why)
	}
}

// asked says that whoever started the tests has named part in -run.
func asked(part string) bool {
	f := flag.Lookup("test.run")
	return f != nil && strings.Contains(f.Value.String(), part)
}

// runsOn says whether tests run on suite without being in a list for it: always on the newest, and
// on others if this is `make test-all` or if -run has the release's name.
func runsOn(suite string) bool { return suite == Newest || All() || asked(suite) }

// EachSuite runs f as a subtest on each of Suites, side by side, in `make test` too: for what
// differs from one systemd to the other. It returns before they have ended.
func EachSuite(t *testing.T, f func(t *testing.T, suite string)) {
	for _, suite := range Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			f(t, suite)
		})
	}
}

// NewestSuite is EachSuite for a test that `make test` runs on the newest release only.
func NewestSuite(t *testing.T, f func(t *testing.T, suite string)) {
	EachSuite(t, func(t *testing.T, suite string) {
		if !runsOn(suite) {
			t.Skip(LeftToAll + "systemd of " + suite)
		}
		f(t, suite)
	})
}

// Runner is t.Run for a test of a table. A test in wait, such as (*testing.T).Parallel, until it is
// its turn is not charged for the CPU time that passes; nil: it does not wait.
type Runner func(name string, wait, f func(*testing.T)) bool

// Table is EachSuite for a table of tests that share a booted system. In `make test` all of them
// run on the newest release, and on the others only those that both names, by the last element of
// their names: a smoke set, and what differs there. f runs every test of its table by run. Tests
// take the name of a release in -run as a wish for all that -run matches.
func Table(t *testing.T, both []string, f func(t *testing.T, suite string, run Runner)) {
	EachSuite(t, func(t *testing.T, suite string) {
		everything := runsOn(suite)
		if !everything && len(both) == 0 {
			t.Skip(LeftToAll + "systemd of " + suite)
		}
		missing := slices.Clone(both)
		f(t, suite, func(name string, wait, f func(*testing.T)) bool {
			last := path.Base(name)
			missing = slices.DeleteFunc(missing, func(s string) bool { return s == last })
			return t.Run(name, func(t *testing.T) {
				if !everything && !slices.Contains(both, last) {
					t.Skip(LeftToAll + "systemd of " + suite)
				}
				if wait != nil {
					wait(t)
				}
				Charge(t)
				f(t)
			})
		})
		for _, name := range missing {
			t.Errorf("there is no test %q to run on %s", name, suite)
		}
	})
}
