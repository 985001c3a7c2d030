package main

import (
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/rollout"
)

// options are the settings of all verbs; each verb reads what concerns it.
type options struct {
	app       app.Name
	instance  int
	userUnits bool
	version   bool
	command   []string // of exec, as the next
	kind      string
	learn     bool
	keepPipe  bool

	path         string
	strategy     string
	drainTimeout time.Duration
	shutdown     string // of drain
	startTimeout time.Duration
	idleExit     time.Duration
	slowStart    time.Duration
	weights      []int
	messages     bool   // of serve: channels are for messages alone
	shutdownMsg  bool   // of serve: programs are told "shutdown"
	programPort  int    // of serve and exec: what programs say for the app's address
	most         int    // connections of an instance
	check        string // of ready
	surge        string // of rollout, as the next two
	parallel     int
	soak         time.Duration
	restartDelay time.Duration // of backoff, as the next
	exitCodes    []int
	limit        app.Size // of memory
}

func defaultOptions() options {
	return options{
		kind:         string(app.KindNode),
		path:         string(app.PathSteer),
		strategy:     string(balance.RoundRobin),
		drainTimeout: app.DefaultDrainTimeout,
		startTimeout: app.DefaultStartTimeout,
		check:        "listen",
		surge:        "1",
		parallel:     1,
		soak:         rollout.DefaultSoak,
		restartDelay: app.DefaultRestartDelay,
	}
}

func (o *options) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("lbshim", pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() {}
	f.StringVar(&o.kind, "kind", o.kind, "how the program gets its listeners, for exec and ready: bind or node")
	f.BoolVar(&o.learn, "learn", o.learn, "with --kind=bind: only see where the program listens")
	f.BoolVar(&o.keepPipe, "sigpipe", o.keepPipe, "with --kind=bind: the program starts with SIGPIPE on, for IgnoreSIGPIPE=no")
	f.StringVar(&o.path, "path", o.path, "how connections reach the instances, steer or handoff")
	f.StringVar(&o.strategy, "strategy", o.strategy, "round-robin, least-connections, random-two, source-hash or first")
	f.Var((*timeSpan)(&o.drainTimeout), "drain-timeout", "how long open connections of an instance may hold its stop")
	f.StringVar(&o.shutdown, "shutdown", o.shutdown, "what the program does on its stop signal: graceful or quick")
	f.Var((*timeSpan)(&o.startTimeout), "start-timeout", "how long the first instance may take to become ready")
	f.Var((*timeSpan)(&o.idleExit), "idle-exit", "stop when no connection was open for this long, 0 is never")
	f.Var((*timeSpan)(&o.slowStart), "slow-start", "how long the share of a restarted instance grows to its full size")
	f.Var(&parsed[[]int]{&o.weights, app.ParseWeights, "WEIGHT,..."}, "weights", "shares of new connections by instance number, the others have 1")
	f.IntVar(&o.most, "max-connections", o.most, "most open connections of an instance, on the handoff path; 0 is any number")
	f.BoolVar(&o.messages, "messages", o.messages, "instances take messages on their channel, and nothing else")
	f.IntVar(&o.programPort, "program-port", o.programPort, "port in the program's code that means the app's address; 0 is none")
	f.BoolVar(&o.shutdownMsg, "shutdown-message", o.shutdownMsg, "send Node.js programs \"shutdown\" before their stop signal, as PM2 does")
	f.StringVar(&o.check, "check", o.check, "what makes an instance ready: listen, node, message, or http:/PATH")
	f.StringVar(&o.surge, "surge", o.surge, "how many extra instances try new code first: a number, or all")
	f.IntVar(&o.parallel, "parallel", o.parallel, "how many instances a rollout restarts at a time")
	f.Var((*timeSpan)(&o.soak), "soak", "how long the extra instances must stay up")
	f.Var((*timeSpan)(&o.restartDelay), "restart-delay", "how long the first automatic restart of an instance waits")
	f.Var(&parsed[[]int]{&o.exitCodes, app.ParseExitCodes, "STATUS,..."}, "stop-exit-codes", "after which no automatic restart follows")
	f.Var(&parsed[app.Size]{&o.limit, app.ParseSize, "SIZE"}, "limit", "resident memory above which an instance is restarted")
	f.BoolVar(&o.userUnits, "user-units", o.userUnits, "talk to the user's service manager")
	f.BoolVar(&o.version, "version", false, "print the version")
	return f
}

// controlPath is where PID 1 (or the user's manager) listens for the shim.
func (o *options) controlPath(e *env) string { return o.app.ControlPath(o.runtimeDir(e)) }

// runtimeDir is where the manager's units have their sockets.
func (o *options) runtimeDir(e *env) string {
	if o.userUnits {
		return e.getenv("XDG_RUNTIME_DIR")
	}
	return "/run"
}

// settings are what a running shim can be told again.
func (o *options) settings() control.Settings {
	return control.Settings{
		Strategy: balance.Strategy(o.strategy), DrainTimeout: o.drainTimeout, StartTimeout: o.startTimeout,
		IdleExit: o.idleExit, SlowStart: o.slowStart, Weights: o.weights, MaxConnections: o.most,
		ShutdownMessage: o.shutdownMsg, ProgramPort: o.programPort,
	}
}

// handoffPath is where the channels of the instance on the handoff path are made.
func (o *options) handoffPath(e *env) string {
	return filepath.Join(filepath.Dir(o.controlPath(e)), app.HandoffName+strconv.Itoa(o.instance))
}

// channelPath is where PID 1 listens for the Node.js programs of the app.
func (o *options) channelPath(e *env) string {
	return filepath.Join(filepath.Dir(o.controlPath(e)), app.ChannelName)
}

// timeSpan is a flag in systemd.time(7)'s words.
type timeSpan time.Duration

func (t *timeSpan) Set(s string) error {
	d, err := app.ParseTimeSpan(s)
	if err != nil {
		return err
	}
	*t = timeSpan(d)
	return nil
}

func (t *timeSpan) String() string { return app.FormatTimeSpan(time.Duration(*t)) }
func (t *timeSpan) Type() string   { return "TIME" }

// parsed is a flag whose value a function of package app reads.
type parsed[T any] struct {
	value *T
	parse func(string) (T, error)
	name  string
}

func (p *parsed[T]) Set(s string) (err error) {
	*p.value, err = p.parse(s)
	return err
}

func (p *parsed[T]) String() string { return "" } // no default to show
func (p *parsed[T]) Type() string   { return p.name }
