package command

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

// Options are the settings of all verbs; each verb reads what concerns it.
type Options struct {
	App       app.Name
	Instance  int
	UserUnits bool
	Version   bool
	Command   []string // of exec, as the next
	Kind      string
	Learn     bool
	KeepPipe  bool

	Path            string
	Strategy        string
	DrainTimeout    time.Duration
	Shutdown        string // of drain
	StartTimeout    time.Duration
	IdleExit        time.Duration
	SlowStart       time.Duration
	Weights         []int
	Messages        bool   // of serve: channels are for messages alone
	ShutdownMessage bool   // of serve: programs are told "shutdown"
	ProgramPort     int    // of serve and exec: what programs say for the app's address
	MaxConnections  int    // connections of an instance
	Check           string // of ready
	Surge           string // of rollout, as the next two
	Parallel        int
	Soak            time.Duration
	RestartDelay    time.Duration // of backoff, as the next
	ExitCodes       []int
	Limit           app.Size // of memory
}

// DefaultOptions are what units leave out.
func DefaultOptions() Options {
	return Options{
		Kind:         string(app.KindNode),
		Path:         string(app.PathSteer),
		Strategy:     string(balance.RoundRobin),
		DrainTimeout: app.DefaultDrainTimeout,
		StartTimeout: app.DefaultStartTimeout,
		Check:        "listen",
		Surge:        "1",
		Parallel:     1,
		Soak:         rollout.DefaultSoak,
		RestartDelay: app.DefaultRestartDelay,
	}
}

// Flags are the options of the command line, which set o.
func (o *Options) Flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("lbshim", pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() {}
	f.StringVar(&o.Kind, "kind", o.Kind, "how the program gets its listeners, for exec and ready: bind or node")
	f.BoolVar(&o.Learn, "learn", o.Learn, "with --kind=bind: only see where the program listens")
	f.BoolVar(&o.KeepPipe, "sigpipe", o.KeepPipe, "with --kind=bind: the program starts with SIGPIPE on, for IgnoreSIGPIPE=no")
	f.StringVar(&o.Path, "path", o.Path, "how connections reach the instances, steer or handoff")
	f.StringVar(&o.Strategy, "strategy", o.Strategy, "round-robin, least-connections, random-two, source-hash or first")
	f.Var((*timeSpan)(&o.DrainTimeout), "drain-timeout", "how long open connections of an instance may hold its stop")
	f.StringVar(&o.Shutdown, "shutdown", o.Shutdown, "what the program does on its stop signal: graceful or quick")
	f.Var((*timeSpan)(&o.StartTimeout), "start-timeout", "how long the first instance may take to become ready")
	f.Var((*timeSpan)(&o.IdleExit), "idle-exit", "stop when no connection was open for this long, 0 is never")
	f.Var((*timeSpan)(&o.SlowStart), "slow-start", "how long the share of a restarted instance grows to its full size")
	f.Var(&parsed[[]int]{&o.Weights, app.ParseWeights, "WEIGHT,..."}, "weights", "shares of new connections by instance number, the others have 1")
	f.IntVar(&o.MaxConnections, "max-connections", o.MaxConnections, "most open connections of an instance, on the handoff path; 0 is any number")
	f.BoolVar(&o.Messages, "messages", o.Messages, "instances take messages on their channel, and nothing else")
	f.IntVar(&o.ProgramPort, "program-port", o.ProgramPort, "port in the program's code that means the app's address; 0 is none")
	f.BoolVar(&o.ShutdownMessage, "shutdown-message", o.ShutdownMessage, "send Node.js programs \"shutdown\" before their stop signal, as PM2 does")
	f.StringVar(&o.Check, "check", o.Check, "what makes an instance ready: listen, node, message, or http:/PATH")
	f.StringVar(&o.Surge, "surge", o.Surge, "how many extra instances try new code first: a number, or all")
	f.IntVar(&o.Parallel, "parallel", o.Parallel, "how many instances a rollout restarts at a time")
	f.Var((*timeSpan)(&o.Soak), "soak", "how long the extra instances must stay up")
	f.Var((*timeSpan)(&o.RestartDelay), "restart-delay", "how long the first automatic restart of an instance waits")
	f.Var(&parsed[[]int]{&o.ExitCodes, app.ParseExitCodes, "STATUS,..."}, "stop-exit-codes", "after which no automatic restart follows")
	f.Var(&parsed[app.Size]{&o.Limit, app.ParseSize, "SIZE"}, "limit", "resident memory above which an instance is restarted")
	f.BoolVar(&o.UserUnits, "user-units", o.UserUnits, "talk to the user's service manager")
	f.BoolVar(&o.Version, "version", false, "print the version")
	return f
}

// ControlPath is where PID 1 (or the user's manager) listens for the shim.
func (o *Options) ControlPath(e *Env) string { return o.App.ControlPath(o.RuntimeDir(e)) }

// RuntimeDir is where the manager's units have their sockets.
func (o *Options) RuntimeDir(e *Env) string {
	if o.UserUnits {
		return e.Getenv("XDG_RUNTIME_DIR")
	}
	return "/run"
}

// Settings are what a running shim can be told again.
func (o *Options) Settings() control.Settings {
	return control.Settings{
		Strategy: balance.Strategy(o.Strategy), DrainTimeout: o.DrainTimeout, StartTimeout: o.StartTimeout,
		IdleExit: o.IdleExit, SlowStart: o.SlowStart, Weights: o.Weights, MaxConnections: o.MaxConnections,
		ShutdownMessage: o.ShutdownMessage, ProgramPort: o.ProgramPort,
	}
}

// HandoffPath is where the channels of the instance on the handoff path are made.
func (o *Options) HandoffPath(e *Env) string {
	return filepath.Join(filepath.Dir(o.ControlPath(e)), app.HandoffName+strconv.Itoa(o.Instance))
}

// ChannelPath is where PID 1 listens for the Node.js programs of the app.
func (o *Options) ChannelPath(e *Env) string {
	return filepath.Join(filepath.Dir(o.ControlPath(e)), app.ChannelName)
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
