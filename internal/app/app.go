// Package app says what an app is: its name, its settings and its instances, and how each is
// written in unit files.
//
// It is pure: it reads no files, asks no manager and starts nothing. Package templates turns an App
// into unit text, cmd/unitgen writes it to disk and package systemd talks to the service manager.
package app

import (
	"time"
)

// MaxInstances is the highest instance number and so the highest count. 512 listeners fill one
// reuseport array with room for the extra instances of a rollout, and are more than any machine has
// use for.
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

// Path is a data path. PathAuto picks the best path that kind, kernel and privileges allow.
type Path string

const (
	PathAuto    Path = "auto"
	PathSteer   Path = "steer"
	PathHandoff Path = "handoff"
	PathProxy   Path = "proxy"
)

// Shutdown is what a program does on its stop signal.
type Shutdown string

const (
	ShutdownGraceful Shutdown = "graceful" // answers what is under way and ends its connections by itself
	ShutdownQuick    Shutdown = "quick"    // ends at once, for all that is known
)

// Values of App.Ready; the last is ReadyHTTP with a path after it.
const (
	ReadyListen  = "listen"  // it accepts a connection
	ReadyNode    = "node"    // it listens on every address of the app, as a Node.js program tells the shim
	ReadyMessage = "message" // it listens so, and has called process.send('ready')
	ReadyExec    = "exec"    // its program was started
	ReadyNotify  = "notify"  // it sends READY=1 (sd_notify(3))
	ReadyHTTP    = "http:"   // it answers GET of the path that follows with 2xx or 3xx
)

// Defaults of Restart. MaxRestartDelay is where the delays between automatic restarts end, which
// grow from failure to failure: an instance that is up again after a mended database is worth a try
// each 10 seconds.
const (
	DefaultRestartDelay = 200 * time.Millisecond
	MaxRestartDelay     = 10 * time.Second
	DefaultWithin       = time.Minute
)

// Defaults of the time-outs, each also TimeoutStopSec='s and TimeoutStartSec='s of the generated
// units.
const (
	DefaultDrainTimeout = 30 * time.Second
	DefaultStartTimeout = 90 * time.Second
)

// Assignment is one KEY=VALUE of the environment; both are literal.
type Assignment struct{ Key, Value string }

// Property is one setting of app@.service's [Service] section, written as given: PID 1 expands
// specifiers such as %i, as with systemd-run --property=.
type Property struct{ Key, Value string }
