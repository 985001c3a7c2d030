package metrics

import (
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/rollout/tally"
)

// usage is what a control group has used.
type usage struct {
	cpu, memory       float64 // seconds, bytes
	hasCPU, hasMemory bool    // else unknown
}

// instance is one instance at the time of a scrape. What systemd says is always there, the rest if the balancer has answered.
type instance struct {
	number   int
	state    string // up, starting, draining, down, stuck
	restarts uint64
	usage    usage
	steered  uint64
	open     int // less than 0: the balancer cannot count it
	queued   int
}

// snapshot is one app at the time of a scrape.
type snapshot struct {
	name      app.Name
	state     string
	wanted    int
	answered  bool
	status    control.Status
	instances []instance
	balancer  usage
	rollouts  tally.Tally
}

// states are those of an instance, in the balancer's words.
var states = [...]string{"up", "starting", "draining", "down", "stuck"}

// appStates are those of an app, in systemd's words for app.service, and idle: the next connection starts it.
var appStates = [...]string{"active", "reloading", "activating", "deactivating", "idle", "inactive", "failed"}
