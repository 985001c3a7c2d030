//go:build integration

// Package policy tests when instances are started anew beside what a rollout of the admin's does,
// and which share of the machine and of the connections each gets: every option of unitgen for
// that, against a real systemd.
package policy

import (
	_ "embed"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m, 6) }

// both are the tests that run on systemd 252 too: it has no RestartSteps=, so that its units count
// restarts another way.
var both = []string{"MaxRestarts", "BackOff"}

func TestPolicy(t *testing.T) {
	rig.Table(t, both, func(t *testing.T, suite string, run rig.Runner) {
		s := apps.Boot(t, suite)
		s.MustWriteFile(t, moodyFile, moodyText, 0o644)
		// By itself: at each daemon-reload, which the others run, systemd 252 forgets how often it
		// has started something.
		run("MaxRestarts", nil, func(t *testing.T) { testMaxRestarts(t, s) })
		// The same: PID 1 misses changes of files that come while it reloads.
		run("Watch", nil, func(t *testing.T) { testWatch(t, s) })
		for name, test := range map[string]func(*testing.T, *apps.System){
			"BackOff":       testBackOff,
			"RestartByHand": testRestartByHand,
			"StopExitCodes": testStopExitCodes,
			"Watchdog":      testWatchdog,
			"Memory":        testMemory,
			"ReloadAt":      testReloadAt,
			"Weights":       testWeights,
			"Pin":           testPin,
		} {
			run(name, (*testing.T).Parallel, func(t *testing.T) { test(t, s) })
		}
	})
}

// moody is a program that misbehaves when it is asked to.
const moodyFile = "/srv/moody.py"

//go:embed moody.py
var moodyText string

// moody starts an app of three instances of it. It takes its socket from PID 1, and says so: the
// trial of a program of which unitgen does not know that takes ten seconds.
func moody(t *testing.T, s *apps.System, name string, options ...string) *apps.App {
	t.Helper()
	return apps.Start(t, s, name, append(options, "--kind=listen", "--", "/usr/bin/python3", moodyFile)...)
}

// at returns a connection to instance i.
func at(a *apps.App, i int) *apps.Held {
	a.T.Helper()
	for _, h := range a.Hold(2 * a.N) {
		if h.Instance == strconv.Itoa(i) {
			return h
		}
	}
	a.T.Fatalf("no connection reached instance %d", i)
	return nil
}

// monotonic is the time as systemd's properties ...TimestampMonotonic have it.
func monotonic(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// timestamp reads such a property; zero if it is not set.
func timestamp(p rig.Properties, name string) time.Duration {
	usec, _ := strconv.ParseInt(p[name], 10, 64)
	return time.Duration(usec) * time.Microsecond
}
