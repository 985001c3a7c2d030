// A build in GOPATH mode, as old packaging tools do it, does not read go.mod and would get the
// behaviour of go 1.20.
//go:debug default=go1.26

// Unitgen writes the systemd units of an app, a program that runs as several balanced instances,
// and changes, lists and removes them. The units do the work; unitgen is not needed while they run.
//
//	main.go      the outside world
//	commands.go  the verbs
//	options.go   the command line
//	nearest.go   what a word that is unknown may have meant
//	verbs.go     what each verb does with it
//	settings.go  options -> the request for an app
//	send.go      messages to the programs of an app
//	import.go    files of other process managers -> .unitgen files
//	complete.go  what can stand in a command line
//	list.go      apps and what they do, status.go one app, watch.go both again and again
//	top.go       both on the whole terminal, with keys that change them
//	act.go       start, stop, restart and reload
//	logs.go      the journal of an app
//
// Package wanted makes the app that is wanted of options, a .unitgen file and this machine. Package
// plan has what is on disk, how that differs, and the writing; live what changes on running apps;
// roster what they do, and view how that is printed; doctor what is wrong with the machine and its
// apps.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"os/user"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/unitgen/unitgen/internal/account"
	"github.com/unitgen/unitgen/internal/cgroup"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/steer"
	"github.com/unitgen/unitgen/internal/wanted"
)

// Set at link time by -X main.version=… and -X main.lbshim=….
var (
	version = "devel"
	lbshim  = "/usr/lib/unitgen/lbshim"
)

// Exit statuses, named as systemctl status shows them (systemd-analyze exit-status).
const (
	exitSuccess         = 0
	exitFailure         = 1 // the system's fault
	exitInvalidArgument = 2 // the user's
)

// env is the outside world, so that tests run the real command in-process.
type env struct {
	args   []string // without the program's name
	getenv func(string) string

	environment func() []string // for programs that are started; nil: none
	cwd         string
	root        string // before every path of the system but those that the user gave; empty for the real one
	euid        int
	userName    string
	stdout      io.Writer
	stderr      io.Writer
	terminal    bool      // stdout is one
	stdin       io.Reader // the user's terminal; nil where there is none

	talkTerminal bool                       // stderr is one
	screen       func() (columns, rows int) // its size
	// signals is signal.NotifyContext; nil in tests.
	signals     func(context.Context, ...os.Signal) (context.Context, context.CancelFunc)
	stopSignals func() // from then on a signal ends the process at once
	now         func() time.Time
	cpus        func() int // that the instances may use
	lbshim      string
	version     string

	// nodePath asks a program that stands for node for the path of the real one.
	nodePath func(ctx context.Context, program string) (string, error)

	// shimStatus asks the shim of an app by its control socket; nil in tests.
	shimStatus func(ctx context.Context, controlPath string) (control.Status, error)
	getent     func(ctx context.Context, database string, keys []string) ([]byte, error) // nil in tests
	exec       func(argv []string) error                                                 // becomes that program; returns if it cannot
	kernel     func() string                                                             // its release, such as 6.12.9
	steering   func() steer.SelfTestResult                                               // what a balancer can do here; nil in most tests
	verify     func(ctx context.Context, userUnits bool, name, text string) string       // what systemd says of a unit file; nil in tests
	isCalendar func(text string) bool                                                    // calendar expressions of systemd.time(7)
	cpuNumbers func() []int                                                              // of the processors that the instances may use
}

// gcPercent has the heap grow to 32 MiB before its first collection. Most runs end before: a list
// of many apps allocates that much in all, and a third of its time was the collector's.
const gcPercent = 800

func main() {
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	e := &env{
		args:   os.Args[1:],
		getenv: os.Getenv,

		environment: os.Environ,

		euid:     os.Geteuid(),
		stdout:   os.Stdout,
		terminal: isTerminal(os.Stdout.Fd()),

		talkTerminal: isTerminal(os.Stderr.Fd()),
		screen:       func() (columns, rows int) { return screenSize(os.Stderr.Fd()) },
		stopSignals:  stop,
		signals:      signal.NotifyContext,

		stderr: os.Stderr,
		now:    time.Now,
		cpus:   cgroup.CPUs,

		shimStatus: askShim,
		getent:     account.Getent,
		verify:     wanted.VerifyUnit,
		exec:       execute,
		kernel:     kernelRelease,
		steering:   steer.BalancerTest,
		isCalendar: wanted.IsCalendar,
		cpuNumbers: cgroup.CPUNumbers,
		nodePath:   wanted.AskNode,

		lbshim:  lbshim,
		version: version,
	}
	if isTerminal(os.Stdin.Fd()) {
		e.stdin = os.Stdin
	}
	e.cwd, _ = os.Getwd() // empty if it was removed: relative paths are then refused
	if u, err := user.Current(); err == nil {
		e.userName = u.Username
	}
	os.Exit(run(ctx, e))
}
