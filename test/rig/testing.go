package rig

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/needs"
)

// journalLines is how much of the journal a failed test shows.
const journalLines = "150"

// Boot is Start for a test: the container is closed at the test's end, and a failed test logs its
// journal. If this machine cannot boot containers, the test is skipped; with UNITGEN_CI=1 it fails
// instead.
func Boot(t testing.TB, suite string, opts Options) *Container {
	t.Helper()
	if err := Missing(suite); err != nil {
		needs.Missing(t, "%v", err)
	}
	Charge(t) // before Close is registered, so that it is charged for
	c, err := Start(t.Context(), suite, opts)
	if err != nil {
		t.Fatal(err)
	}
	cpu.add(c, t.Name())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("journal of %s:\n%s", c.Name, c.journalTail())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// journalTail returns the last lines of the units that the test has named, or the reason why there
// are none.
func (c *Container) journalTail() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	args := []string{"journalctl", "--no-pager", "--quiet", "--output=short-precise", "--lines=" + journalLines}
	for _, pattern := range c.opts.Units {
		args = append(args, "--unit="+pattern)
	}
	err := c.syncJournal(ctx)
	if err != nil {
		return err.Error()
	}
	out, err := c.output(ctx, args...)
	if err != nil {
		return err.Error()
	}
	return out
}

// MustExec runs argv in the container and returns its standard output; an exit status other than 0
// ends the test.
func (c *Container) MustExec(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := c.output(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// MustShow is Show for a test.
func (c *Container) MustShow(t testing.TB, unit, property string) string {
	t.Helper()
	value, err := c.Show(t.Context(), unit, property)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// MustWait is WaitFor for a test, with a limit.
func (c *Container) MustWait(t testing.TB, limit time.Duration, unit string, ok func(Properties) bool) Properties {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	p, err := c.WaitFor(ctx, unit, ok)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// MustWriteFile is WriteFile for a test.
func (c *Container) MustWriteFile(t testing.TB, name, data string, mode os.FileMode) {
	t.Helper()
	if err := c.WriteFile(t.Context(), name, []byte(data), mode); err != nil {
		t.Fatal(err)
	}
}

// MustCopyIn is CopyIn for a test.
func (c *Container) MustCopyIn(t testing.TB, src, dst string, mode os.FileMode) {
	t.Helper()
	if err := c.CopyIn(t.Context(), src, dst, mode); err != nil {
		t.Fatal(err)
	}
}

// RepoRoot returns the folder of this repository's go.mod, above the working directory.
func RepoRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		return "", &os.PathError{Op: "find above the working directory", Path: "go.mod", Err: os.ErrNotExist}
	}
}

// Bin returns the path of the program bin/NAME, which "make build" makes.
func Bin(t testing.TB, name string) string {
	t.Helper()
	root, err := RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("find program: %v (make build makes it)", err)
	}
	return path
}

// Main is a package's TestMain that lets up to n tests run at a time, whatever the number of CPUs:
// those that mostly wait, for drains, timers and PID 1.
func Main(m *testing.M, n int) {
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(n)); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
