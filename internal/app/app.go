// Package app says what an app is: its name, its settings and its instances, and how each is written in unit files.
//
// It is pure: it reads no files, asks no manager and starts nothing. Package templates turns an App into unit text,
// cmd/unitgen writes it to disk and package systemd talks to the service manager.
package app

import (
	"time"

	"github.com/unitgen/unitgen/internal/balance"
)

// MaxInstances is the highest instance number and so the highest count. 512 listeners fill one reuseport array with
// room for the extra instances of a rollout, and are more than any machine has use for.
const MaxInstances = 512

// Kind says what the program can do; it decides the data path.
type Kind string

const (
	KindBind    Kind = "bind"    // binds its port itself, which is answered with its socket, or takes its socket from systemd
	KindListen  Kind = "listen"  // takes its listening socket from systemd: LISTEN_FDS, fd 3 (sd_listen_fds(3))
	KindNode    Kind = "node"    // an unmodified Node.js program
	KindHandoff Kind = "handoff" // receives connected sockets through package activation
	KindPort    Kind = "port"    // listens on $PORT itself
	KindUnix    Kind = "unix"    // listens on the unix socket $SOCKET itself
)

// Path is a data path; PathAuto picks the best one that kind, kernel and privileges allow.
type Path string

const (
	PathAuto    Path = "auto"
	PathSteer   Path = "steer"
	PathHandoff Path = "handoff"
	PathProxy   Path = "proxy"
)

// Strategy and its values are balance.Strategy's.
type Strategy = balance.Strategy

const (
	RoundRobin       = balance.RoundRobin
	LeastConnections = balance.LeastConnections
	RandomTwo        = balance.RandomTwo
	SourceHash       = balance.SourceHash
	First            = balance.First
)

// Shutdown is what a program does on its stop signal.
type Shutdown string

const (
	ShutdownGraceful Shutdown = "graceful" // answers what is under way and ends its connections by itself
	ShutdownQuick    Shutdown = "quick"    // ends at once, for all that is known
)

// App is everything that unitgen knows of an app but its instances, which are the links in app.service.wants/. It is
// what section [X-Unitgen] of app.service holds (see ParseSettings and Settings).
type App struct {
	Name             Name
	Command          []string // argv; Command[0] is an absolute path
	Listen           []Listen
	ProgramPort      int      // what the program says for the app's one port; zero: it says that port
	Kind             Kind     // zero means the default of the path: see BindAnswered
	Path             Path     // zero means PathAuto
	Strategy         Strategy // zero means the path's default
	Environment      []Assignment
	EnvironmentFiles []string // absolute and literal, an optional leading "-" as in EnvironmentFile=
	WorkingDirectory string   // absolute; empty means /
	User             string   // empty means DynamicUser=: see InstanceUser
	UserPerInstance  bool     // each instance has a dynamic user of its own, not one of the app's
	Properties       []Property
	DrainTimeout     time.Duration // zero means DefaultDrainTimeout
	Shutdown         Shutdown      // empty: see ShutdownOrDefault
	StartTimeout     time.Duration // zero means DefaultStartTimeout
	IdleExit         time.Duration // zero means never
	SlowStart        time.Duration // zero means that an instance that came back has its whole share at once
	Agent            Listen        // where load balancers learn how the app is; zero: nowhere
	Metrics          Listen        // where Prometheus asks for the metrics of the app; zero: nowhere
	Ready            string        // what makes an instance ready: see ReadyOrDefault
	Messages         bool          // programs other than Node.js have a channel for messages (package activation)
	ShutdownMessage  bool          // Node.js programs are told "shutdown" before SIGTERM
	Surge            string        // extra instances of a rollout, a number or "all"; empty means 1
	Parallel         int           // instances that a rollout restarts at a time; zero means 1
	Soak             time.Duration // how long extra instances must stay up; zero means lbshim's default
	Restart          Restart
	MaxConnections   int   // open connections that an instance has at most; zero means any number
	Weights          []int // shares of new connections by instance number; those after the list have 1
	Pin              bool  // each instance to one CPU, by a drop-in of its own
	UserUnits        bool  // units of a user's own manager: no DynamicUser=, no capabilities, %t instead of /run
	SystemdVersion   int   // the version the units are written for; zero means MinSystemdVersion
}

// Restart says when instances are started anew, beside what a rollout does: each by a setting or a unit of systemd's own.
type Restart struct {
	Delay         time.Duration // before the first automatic restart; zero means DefaultRestartDelay
	Max           int           // automatic restarts of an instance within Within; zero means any number
	Within        time.Duration // zero means DefaultWithin
	StopExitCodes []int         // exit statuses after which an instance stays stopped
	Watchdog      time.Duration // an instance that is silent for so long is killed; zero means never
	MaxMemory     Size          // above it the kernel kills; zero means no limit
	MemoryReload  Size          // resident memory above which an instance is drained and restarted; zero means never
	ReloadAt      string        // when to roll, OnCalendar= of systemd.timer(5); empty means never
	Watch         []string      // absolute paths whose change starts a rollout
}

// Values of App.Ready; the last is ReadyHTTP with a path after it.
const (
	ReadyListen  = "listen"  // it accepts a connection
	ReadyNode    = "node"    // it listens on every address of the app, as a Node.js program tells the shim
	ReadyMessage = "message" // it listens so, and has called process.send('ready')
	ReadyExec    = "exec"    // its program was started
	ReadyNotify  = "notify"  // it sends READY=1 (sd_notify(3))
	ReadyHTTP    = "http:"   // it answers GET of the path that follows with 2xx or 3xx
)

// Defaults of Restart. MaxRestartDelay is where the delays between automatic restarts end, which grow from failure to
// failure: an instance that is up again after a mended database is worth a try each 10 seconds.
const (
	DefaultRestartDelay = 200 * time.Millisecond
	MaxRestartDelay     = 10 * time.Second
	DefaultWithin       = time.Minute
)

// Defaults of the time-outs, each also TimeoutStopSec='s and TimeoutStartSec='s of the generated units.
const (
	DefaultDrainTimeout = 30 * time.Second
	DefaultStartTimeout = 90 * time.Second
)

// Assignment is one KEY=VALUE of the environment; both are literal.
type Assignment struct{ Key, Value string }

// Property is one setting of app@.service's [Service] section, written as given: specifiers such as %i are expanded by
// PID 1, as with systemd-run --property=.
type Property struct{ Key, Value string }
