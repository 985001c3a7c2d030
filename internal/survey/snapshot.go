// Package survey looks at all apps of a service manager at once: what systemd, the kernel's control
// groups, the balancers and the tallies of rollouts say of each app and of its instances.
//
// A look costs one listing of units, three properties of each app, three small files of each
// instance, and one question to each balancer that runs, which walks the kernel's table of
// connections once. PID 1 answers while the balancers do. It is asked for more of instances whose
// balancer does not answer, and if Source.Depth says so. It remembers nothing: rates are for the
// caller, who has two looks, or for Rate, which has the whole run. For 64 apps of eight instances
// that is 0.05 s of CPU here, 8 ms in PID 1 and 0.04 s in the balancers (docs/scale.md).
//
// It is not for readiness or balancing, and it changes nothing: asking starts no app.
package survey

import (
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/rollout/tally"
)

// Usage is what a control group has used since its unit was started.
type Usage struct {
	CPU, Memory       float64 // seconds, bytes
	HasCPU, HasMemory bool    // else unknown
}

// Instance is one instance at the time of a look. What systemd says is always there, the rest if
// the balancer has answered.
type Instance struct {
	Number   int
	State    string // up, starting, draining, down, stuck
	Restarts uint64
	Usage    Usage
	Steered  uint64
	Open     int // less than 0: nobody has counted it
	Queued   int

	Started    time.Time // of the program that runs; zero if none runs, or from Depth Starts on
	PID        int       // of that program; from Depth Processes on
	Invocation string    // systemd's identifier of the start, 32 hex digits; from Depth Processes on
	Group      string    // control group, as systemd has it; empty for none
}

// App is one app at the time of a look.
type App struct {
	Name      app.Name
	State     string // one of AppStates
	Wanted    int    // instances that are enabled
	Answered  bool   // the balancer has
	Silent    error  // why it has not, though it runs; nil if it was not asked
	Status    control.Status
	Instances []Instance // by number
	Balancer  Usage
	Rollouts  tally.Tally
	Opened    time.Time // when the app's port was opened, which is when Steered began to count; from Depth Starts on
	Line      string    // while the app is reloading, what systemctl status shows; from Depth Starts on
}

// Up is how many instances may take connections.
func (a *App) Up() int {
	n := 0
	for _, in := range a.Instances {
		if in.State == "up" {
			n++
		}
	}
	return n
}

// Runs says whether the balancer runs, or is being started. Asking one that does not would start
// it.
func (a *App) Runs() bool { // by reference: the rest of the app may be being read
	return a.State == "active" || a.State == "reloading" || a.State == "activating"
}

// States are those of an instance, in the balancer's words.
func States() []string { return []string{"up", "starting", "draining", "down", "stuck"} }

// AppStates are those of an app, in systemd's words for app.service, and idle: the next connection
// starts it.
func AppStates() []string {
	return []string{"active", "reloading", "activating", "deactivating", "idle", "inactive", "failed"}
}

// Depth is how much a look asks systemd for.
type Depth int

// Each depth has what those before it have.
const (
	Counters  Depth = iota // what metrics are made of
	Starts                 // and when apps and instances started
	Processes              // and by which process and start
)
