// A build in GOPATH mode, as old packaging tools do it, does not read go.mod and would get the
// behaviour of go 1.20.
//go:debug default=go1.26

// Unitgen-metrics answers scrapes of Prometheus for one app, or for all of the host, on the socket
// that systemd passes. Packages install it as /usr/lib/unitgen/metrics.
//
//	metrics [APP] [--user-units]
//
// It is a program of its own, and no verb of lbshim: the client library would make every lbshim, of
// which four run at each start of an instance, a quarter larger and half as slow to start. And it
// runs as a user who may do nothing else, as it is the one part of unitgen that reads what
// strangers send.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/spf13/pflag"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/metrics"
	"github.com/unitgen/unitgen/internal/relay"
	"github.com/unitgen/unitgen/internal/sdlog"
	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/systemd"
)

// version is set at link time.
var version = "devel"

// Exit statuses, named as systemctl status shows them (systemd-analyze exit-status).
const (
	exitFailure         = 1
	exitInvalidArgument = 2
	exitNotConfigured   = 6
)

// env is the outside world, so that tests run the command in-process.
type env struct {
	args   []string // without the program's name
	getenv func(string) string
	euid   int
	stdout io.Writer
	stderr io.Writer
	log    *slog.Logger
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	e := &env{args: os.Args[1:], getenv: os.Getenv, euid: os.Geteuid(), stdout: os.Stdout, stderr: os.Stderr}
	e.log = slog.New(sdlog.NewStream("metrics", os.Stderr, slog.LevelInfo))
	if ok, err := journal.StderrIsJournalStream(); ok && err == nil {
		e.log = slog.New(sdlog.NewJournal("metrics", os.Stderr, slog.LevelInfo))
	}
	os.Exit(run(ctx, e))
}

// options are the command line.
type options struct {
	app                app.Name // empty: all
	userUnits, version bool
	help               bool
}

const usage = `metrics [APP] [OPTIONS...]

Answers scrapes of Prometheus for APP, or for all apps of the host, on the socket
that systemd passes; see docs/metrics.md. It ends a minute after the last one.

Options:
`

func parse(args []string) (options, *pflag.FlagSet, error) {
	var o options
	f := pflag.NewFlagSet("metrics", pflag.ContinueOnError)
	f.Usage = func() {}
	f.SortFlags = false
	f.BoolVar(&o.userUnits, "user-units", false, "ask the user's service manager")
	f.BoolVarP(&o.help, "help", "h", false, "this text")
	f.BoolVar(&o.version, "version", false, "print the version")
	if err := f.Parse(args); err != nil {
		return o, f, err
	}
	switch f.NArg() {
	case 0:
		return o, f, nil
	case 1:
		name, err := app.ParseName(f.Arg(0))
		o.app = name
		return o, f, err
	}
	return o, f, fmt.Errorf("it takes one app, got %q", f.Args())
}

func run(ctx context.Context, e *env) int {
	o, flags, err := parse(e.args)
	switch {
	case err != nil:
		fmt.Fprintf(e.stderr, "metrics: %v, try 'metrics --help'\n", err)
		return exitInvalidArgument
	case o.help:
		fmt.Fprint(e.stdout, usage, flags.FlagUsages())
		return 0
	case o.version:
		fmt.Fprintln(e.stdout, "metrics", version)
		return 0
	}
	ln, err := listener()
	if err != nil {
		e.log.Error("take socket from systemd", "error", err)
		return exitNotConfigured
	}
	if err := serve(ctx, e, o, ln); err != nil {
		e.log.Error(err.Error())
		return exitFailure
	}
	return 0
}

// listener takes the one socket that systemd passes.
func listener() (net.Listener, error) {
	passed, err := activation.Inherit()
	if err != nil {
		return nil, err
	}
	all, err := passed.AllListeners()
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		for _, ln := range all {
			ln.Close()
		}
		return nil, errors.New("it must be one listener (systemctl start unitgen-metrics.socket)")
	}
	return all[0], nil
}

func serve(ctx context.Context, e *env, o options, ln net.Listener) error {
	notify, err := activation.NewNotifier()
	if err != nil {
		return err
	}
	defer notify.Close()
	source := &metrics.Source{Source: survey.Source{RuntimeDir: "/run", Log: e.log}}
	if o.app != "" {
		source.Apps = []app.Name{o.app}
	}
	source.Ask = func(ctx context.Context, name app.Name) (s control.Status, err error) {
		err = control.Call(ctx, relay.Path, control.MethodStatus, relay.Ask{App: name}, &s)
		return s, err
	}
	endpoint := systemd.SystemEndpoint(e.euid, e.getenv("DBUS_SYSTEM_BUS_ADDRESS"))
	if o.userUnits { // the control sockets are the user's own
		source.RuntimeDir = e.getenv("XDG_RUNTIME_DIR")
		endpoint = systemd.UserEndpoint(source.RuntimeDir, e.getenv("DBUS_SESSION_BUS_ADDRESS"))
		source.Ask = func(ctx context.Context, name app.Name) (s control.Status, err error) {
			err = control.Call(ctx, name.ControlPath(source.RuntimeDir), control.MethodStatus, struct{}{}, &s)
			return s, err
		}
	}
	source.Dial = func(ctx context.Context) (survey.Manager, func(), error) {
		conn, err := systemd.Dial(ctx, endpoint)
		if err != nil {
			return nil, nil, err
		}
		return conn, func() { conn.Close() }, nil
	}
	if err := notify.Ready(); err != nil {
		return err
	}
	return metrics.NewServer(source, 0).Serve(ctx, ln)
}
