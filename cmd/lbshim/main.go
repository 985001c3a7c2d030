// A build in GOPATH mode, as old packaging tools do it, does not read go.mod and would get the
// behaviour of go 1.20.
//go:debug default=go1.26

// Lbshim is the balancer of one app and, under other verbs, the small commands that the app's units
// run.
//
//	lbshim serve APP     ExecStart= of APP.service: keeps the ring, watches the instances
//	lbshim join APP [I]  APP-join.service, APP-join@I.service: gives the listeners of all instances, or of I, to the shim
//	lbshim exec APP I -- COMMAND…
//	                     ExecStart= of APP@I.service: has the program's bind() answered, or connects a Node.js program with
//	                     the shim, and becomes it
//	lbshim answer APP I PORT
//	                     started by exec: answers bind() of the program with the instance's listeners
//	lbshim ready APP I   ExecStartPost= of APP@I.service: waits until the instance accepts connections
//	lbshim drain APP I   ExecStop= of APP@I.service: takes the instance off the ring and waits for its connections
//	lbshim backoff APP I ExecStopPost= of APP@I.service: delays the restart of an instance that fails again
//	lbshim rollout APP   ExecReload= of APP.service: puts new code live, one instance after another
//	lbshim resume APP    ExecStartPost= of APP.service: renews the instances on restart
//	lbshim stop APP      ExecStop= of APP.service: closes the port and stops the instances on stop
//	lbshim cleanup APP   ExecStopPost= of APP.service: stops the instances when the app is idle
//	lbshim memory APP    APP-memory.service: restarts instances that have grown too large
//	lbshim agent APP     APP-agent.service: tells load balancers on other machines how the app is on this one
//	lbshim status        unitgen-status.service: tells the program that answers scrapes what balancers say
//	lbshim upgrade       the hook of lbshim's package: has the running balancers go on as the new program
//
// It is not meant to be started by hand: see unitgen(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/spf13/pflag"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/bindnotify"
	"github.com/unitgen/unitgen/internal/sdlog"
)

// version is set at link time.
var version = "devel"

// Exit statuses, named as systemctl status shows them (systemd-analyze exit-status).
const (
	exitSuccess         = 0
	exitFailure         = 1
	exitInvalidArgument = 2
	exitNotConfigured   = 6
)

// env is the outside world, so that tests run the commands in-process.
type env struct {
	args    []string // without the program's name
	getenv  func(string) string
	environ func() []string
	stdout  io.Writer
	stderr  io.Writer
	journal bool // stderr is the journal's
	log     *slog.Logger
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == bindnotify.Verb {
		os.Exit(answer(&env{args: os.Args, getenv: os.Getenv, stderr: os.Stderr}))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	e := &env{args: os.Args[1:], getenv: os.Getenv, environ: os.Environ, stdout: os.Stdout, stderr: os.Stderr}
	// If that is not known, stderr is the user's, and all messages go there.
	e.journal, _ = journal.StderrIsJournalStream()
	e.log = newLog(e)
	os.Exit(run(ctx, e))
}

func newLog(e *env) *slog.Logger {
	if !e.journal { // JOURNAL_STREAM alone is inherited by programs whose output somebody has redirected
		return slog.New(sdlog.NewStream("lbshim", e.stderr, slog.LevelInfo))
	}
	return slog.New(sdlog.NewJournal("lbshim", e.stderr, slog.LevelInfo))
}

// verb is one command.
type verb struct {
	name     string
	allApps  bool // takes no app
	instance bool // takes an instance number after the app's name
	maybeAll bool // without the number, it is for all instances
	command  bool // takes a command after "--"
	run      func(ctx context.Context, e *env, o options) error

	// unit returns the unit to whose start or reload the command belongs. A command that ends
	// because PID 1 stops that unit has not failed.
	unit func(o options) string
}

func theShim(o options) string     { return o.app.Service() }
func theInstance(o options) string { return o.app.Instance(o.instance) }

func theJoin(o options) string {
	if o.instance == 0 {
		return o.app.JoinAll()
	}
	return o.app.Join(o.instance)
}

func verbs() []verb {
	return []verb{
		{name: "serve", run: serve},
		{name: "join", instance: true, maybeAll: true, run: join, unit: theJoin},
		{name: "connect", instance: true, run: connect, unit: theInstance},
		{name: "exec", instance: true, command: true, run: execute},
		{name: "ready", instance: true, run: ready, unit: theInstance},
		{name: "drain", instance: true, run: drain},
		{name: "backoff", instance: true, run: backOff},
		{name: "rollout", run: roll, unit: theShim},
		{name: "resume", run: resume, unit: theShim},
		{name: "stop", run: stop},
		{name: "cleanup", run: cleanup},
		{name: "memory", run: relieve},
		{name: "agent", run: tellHost},
		{name: "status", allApps: true, run: status},
		{name: "upgrade", allApps: true, run: upgrade},
	}
}

// statusError is an error with an exit status.
type statusError struct {
	status int
	err    error
}

func (s *statusError) Error() string { return s.err.Error() }
func (s *statusError) Unwrap() error { return s.err }

func usageError(format string, a ...any) error {
	return &statusError{exitInvalidArgument, fmt.Errorf(format, a...)}
}

func run(ctx context.Context, e *env) int {
	v, o, err := parse(e)
	if err == nil && v != nil {
		err = v.run(ctx, e, o)
	}
	if err != nil && ctx.Err() != nil && v != nil && v.unit != nil && stops(e, o, v.unit(o)) {
		e.log.Info("ended, as the unit is stopped", "verb", v.name, "error", err)
		err = nil
	}
	if err == nil {
		return exitSuccess
	}
	status := exitFailure
	if se, ok := errors.AsType[*statusError](err); ok {
		status = se.status
	}
	if err.Error() != "" {
		lastWords(e).Error(err.Error())
	}
	return status
}

// lastWords returns the log for messages just before the process ends, so that the reason of a
// failure is found under its unit.
func lastWords(e *env) *slog.Logger {
	if !e.journal {
		return e.log
	}
	return slog.New(sdlog.NewJournalStream("lbshim", e.stderr, slog.LevelInfo))
}

// parse returns no verb where the options asked for a text that it has printed.
func parse(e *env) (*verb, options, error) {
	o := defaultOptions()
	flags := o.flags()
	if err := flags.Parse(e.args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			fmt.Fprint(e.stdout, usage, flags.FlagUsages())
			return nil, o, nil
		}
		return nil, o, usageError("%v, try 'lbshim --help'", err)
	}
	if o.version {
		fmt.Fprintln(e.stdout, "lbshim", version)
		return nil, o, nil
	}
	words := flags.Args()
	if dash := flags.ArgsLenAtDash(); dash >= 0 {
		words, o.command = words[:dash], words[dash:]
	}
	if len(words) == 0 {
		return nil, o, usageError("a verb is missing, try 'lbshim --help'")
	}
	for _, v := range verbs() {
		if v.name != words[0] {
			continue
		}
		return &v, o, o.operands(v, words[1:])
	}
	return nil, o, usageError("unknown verb %q, try 'lbshim --help'", words[0])
}

const usage = `lbshim VERB APP [INSTANCE] [OPTIONS...]

The balancer of one app and the commands its units run; units are written by unitgen(1).

Verbs:
  serve APP            balance connections over the app's instances
  join APP [INSTANCE]  give the listeners of an instance, or of all, to the balancer
  connect APP INSTANCE give an instance's channel of the handoff path to it
  exec APP INSTANCE -- COMMAND [ARG...]
                       run a program of --kind=bind or --kind=node
  ready APP INSTANCE   wait until an instance accepts connections
  drain APP INSTANCE   take an instance off and wait for its connections
  backoff APP INSTANCE delay the restart of an instance that fails again
  rollout APP          restart the instances one after another, on new code
  resume APP           renew the instances of an app that was restarted
  stop APP             close the port and end the instances, unless the app is restarted
  cleanup APP          stop the instances of an app that went idle
  memory APP           restart the instances that have grown above --limit=
  agent APP            tell load balancers how the app is on this host
  status               relay the status of the balancers to the program that answers scrapes
  upgrade              replace the running balancers of all apps by this program

Options:
`

func (o *options) operands(v verb, words []string) error {
	want := 1
	switch {
	case v.allApps:
		want = 0
	case v.instance && !(v.maybeAll && len(words) == 1):
		want = 2
	}
	if len(words) != want {
		return usageError("%s takes %d operands, got %d, try 'lbshim --help'", v.name, want, len(words))
	}
	switch {
	case v.command && len(o.command) == 0:
		return usageError("%s needs a command after \"--\", try 'lbshim --help'", v.name)
	case !v.command && len(o.command) > 0:
		return usageError("%s takes no command, try 'lbshim --help'", v.name)
	}
	if v.allApps {
		return nil
	}
	name, err := app.ParseName(words[0])
	if err != nil {
		return usageError("%v", err)
	}
	o.app = name
	if want == 2 {
		i, ok := app.ParseInstance(words[1])
		if !ok {
			return usageError("instance must be a number between 1 and %s, got %q", strconv.Itoa(app.MaxInstances), words[1])
		}
		o.instance = i
	}
	return nil
}
