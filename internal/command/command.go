// Package command is what the programs of the shim have in common: their command line and their log,
// and what becomes of an error.
//
// Lbshim is two programs, as the commands that each start of an instance runs must start fast: what
// the balancer is made of (eBPF, HTTP) would double the time that they take until main. So
// cmd/lbshim has those, and becomes cmd/lbshim-balancer for all other verbs.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/spf13/pflag"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/sdlog"
)

// Exit statuses, named as systemctl status shows them (systemd-analyze exit-status).
const (
	ExitSuccess         = 0
	ExitFailure         = 1
	ExitInvalidArgument = 2
	ExitNotConfigured   = 6
	// ExitExec is that of PID 1 for a process that it cannot turn into the program.
	ExitExec = 203
)

// Env is the outside world, so that tests run the commands in-process.
type Env struct {
	Args    []string // without the program's name
	Getenv  func(string) string
	Environ func() []string
	Stdout  io.Writer
	Stderr  io.Writer
	Journal bool // Stderr is the journal's
	Log     *slog.Logger
}

// Main runs one of verbs with the arguments and the environment of the process, and returns its exit
// status.
func Main(version string, verbs []Verb) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return Run(ctx, Own(), version, verbs)
}

// Own is the world of this process.
func Own() *Env {
	e := &Env{Args: os.Args[1:], Getenv: os.Getenv, Environ: os.Environ, Stdout: os.Stdout, Stderr: os.Stderr}
	// If that is not known, stderr is the user's, and all messages go there.
	e.Journal, _ = journal.StderrIsJournalStream()
	if e.Journal { // JOURNAL_STREAM alone is inherited by programs whose output somebody has redirected
		e.Log = slog.New(sdlog.NewJournal("lbshim", e.Stderr, slog.LevelInfo))
	} else {
		e.Log = slog.New(sdlog.NewStream("lbshim", e.Stderr, slog.LevelInfo))
	}
	return e
}

// LastWords returns the log for messages just before the process ends, so that the reason of a
// failure is found under its unit.
func (e *Env) LastWords() *slog.Logger {
	if !e.Journal {
		return e.Log
	}
	return slog.New(sdlog.NewJournalStream("lbshim", e.Stderr, slog.LevelInfo))
}

// Verb is one command.
type Verb struct {
	Name     string
	AllApps  bool // takes no app
	Instance bool // takes an instance number after the app's name
	MaybeAll bool // without the number, it is for all instances
	Command  bool // takes a command after "--"
	Run      func(ctx context.Context, e *Env, o Options) error

	// Unit returns the unit to whose start or reload the command belongs. A command that ends
	// because PID 1 stops that unit has not failed.
	Unit func(o Options) string
}

// WithStatus gives an error the exit status of the process.
func WithStatus(status int, err error) error { return &statusError{status, err} }

// UsageError is an error of whoever has written the command line.
func UsageError(format string, a ...any) error {
	return WithStatus(ExitInvalidArgument, fmt.Errorf(format, a...))
}

// ErrSilent carries an exit status without a message.
var ErrSilent = errors.New("")

type statusError struct {
	status int
	err    error
}

func (s *statusError) Error() string { return s.err.Error() }
func (s *statusError) Unwrap() error { return s.err }

// Run is Main in a world that is given.
func Run(ctx context.Context, e *Env, version string, verbs []Verb) int {
	v, o, err := parse(e, version, verbs)
	if err == nil && v != nil {
		err = v.Run(ctx, e, o)
	}
	if err != nil && ctx.Err() != nil && v != nil && v.Unit != nil && stops(e, o, v.Unit(o)) {
		e.Log.Info("ended, as the unit is stopped", "verb", v.Name, "error", err)
		err = nil
	}
	if err == nil {
		return ExitSuccess
	}
	status := ExitFailure
	if se, ok := errors.AsType[*statusError](err); ok {
		status = se.status
	}
	if err.Error() != "" {
		e.LastWords().Error(err.Error())
	}
	return status
}

// parse returns no verb where the options asked for a text that it has printed.
func parse(e *Env, version string, verbs []Verb) (*Verb, Options, error) {
	o := DefaultOptions()
	flags := o.Flags()
	if err := flags.Parse(e.Args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			fmt.Fprint(e.Stdout, usage, flags.FlagUsages())
			return nil, o, nil
		}
		return nil, o, UsageError("%v, try 'lbshim --help'", err)
	}
	if o.Version {
		fmt.Fprintln(e.Stdout, "lbshim", version)
		return nil, o, nil
	}
	words := flags.Args()
	if dash := flags.ArgsLenAtDash(); dash >= 0 {
		words, o.Command = words[:dash], words[dash:]
	}
	if len(words) == 0 {
		return nil, o, UsageError("a verb is missing, try 'lbshim --help'")
	}
	i := slices.IndexFunc(verbs, func(v Verb) bool { return v.Name == words[0] })
	if i < 0 {
		return nil, o, UsageError("unknown verb %q, try 'lbshim --help'", words[0])
	}
	return &verbs[i], o, o.operands(verbs[i], words[1:])
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

func (o *Options) operands(v Verb, words []string) error {
	want := 1
	switch {
	case v.AllApps:
		want = 0
	case v.Instance && !(v.MaybeAll && len(words) == 1):
		want = 2
	}
	if len(words) != want {
		return UsageError("%s takes %d operands, got %d, try 'lbshim --help'", v.Name, want, len(words))
	}
	switch {
	case v.Command && len(o.Command) == 0:
		return UsageError("%s needs a command after \"--\", try 'lbshim --help'", v.Name)
	case !v.Command && len(o.Command) > 0:
		return UsageError("%s takes no command, try 'lbshim --help'", v.Name)
	}
	if v.AllApps {
		return nil
	}
	name, err := app.ParseName(words[0])
	if err != nil {
		return UsageError("%v", err)
	}
	o.App = name
	if want == 2 {
		i, ok := app.ParseInstance(words[1])
		if !ok {
			return UsageError("instance must be a number between 1 and %s, got %q", strconv.Itoa(app.MaxInstances), words[1])
		}
		o.Instance = i
	}
	return nil
}
