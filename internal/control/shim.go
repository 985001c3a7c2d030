package control

import (
	"encoding/json"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
)

// Methods of the interface. A comment names the parameters and the answer; where none is named it
// is an empty object.
const (
	MethodJoin      = "Join"      // Instance, with the instance's listeners beside it
	MethodConnect   = "Connect"   // Instance, with a channel beside it; on the handoff path only
	MethodDeliver   = "Deliver"   // Instance, with a connection beside it; on the handoff path only
	MethodDrain     = "Drain"     // DrainParameters; Drained
	MethodClose     = "Close"     // the listeners that root must close are beside the answer
	MethodProbe     = "Probe"     // ProbeParameters; on the steer path only
	MethodAccepted  = "Accepted"  // Instance; Accepted; on the steer path only
	MethodListening = "Listening" // ListeningParameters; Listening
	MethodSend      = "Send"      // SendParameters; Sent
	MethodEnded     = "Ended"     // Instance
	MethodSteered   = "Steered"   // Instance
	MethodConfigure = "Configure" // Settings
	MethodRolling   = "Rolling"   // Rollout
	MethodRolled    = "Rolled"    // Rollout
	MethodNote      = "Note"      // Note
	MethodStatus    = "Status"    // Status
	MethodAddresses = "Addresses" // Addresses
)

// Instance are the parameters of methods that concern one instance.
type Instance struct {
	Instance int `json:"instance"`
}

// DrainParameters of method Drain.
type DrainParameters struct {
	Instance int `json:"instance"`
	// Graceful says that the program, once told to stop, answers what is under way and ends its
	// connections by itself. The drain then ends when the requests are answered that were in flight
	// when it began.
	Graceful bool `json:"graceful"`
	// Settle is how long a graceful drain takes at least, unless no connection is busy: connections
	// that were opened just before have that long to ask. Zero for a program that gives them time
	// itself.
	Settle time.Duration `json:"settleNSec"`
}

// Drained is the last answer of method Drain: the connections that were open when the drain ended,
// and how many of them were busy.
type Drained struct {
	Open     int  `json:"connections"`
	Busy     int  `json:"busy"`
	TimedOut bool `json:"timedOut"`
}

// ProbeParameters of method Probe.
type ProbeParameters struct {
	Instance int    `json:"instance"`
	Address  string `json:"address"` // one of the app's, as in Status
	Port     uint16 `json:"port"`    // of the socket that the caller probes from
}

// Accepted is the answer of method Accepted.
type Accepted struct {
	// Again says that the probes may have gone elsewhere, or wait in the kernel, as the program has
	// changed its listener meanwhile. They prove nothing: the caller makes them again.
	Again bool `json:"again,omitempty"`
}

// ListeningParameters of method Listening.
type ListeningParameters struct {
	Instance int  `json:"instance"`
	Message  bool `json:"message,omitempty"` // also wait until the program has sent "ready"
}

// Listening is an answer of method Listening: what an instance's program does not serve yet.
type Listening struct {
	Missing []string `json:"missing,omitempty"` // addresses of the app
	Silent  bool     `json:"silent,omitempty"`  // the program has not sent "ready"; only with ListeningParameters.Message
	Refused string   `json:"refused,omitempty"` // why the program's last listen() got nothing
}

// SendParameters of method Send.
type SendParameters struct {
	Instance int             `json:"instance"` // 0 is all
	Message  json.RawMessage `json:"message"`
}

// Sent is the answer of method Send: the instances whose programs are being sent the message, and
// those whose programs do not read their messages and so do not get this one.
type Sent struct {
	Instances []int `json:"instances"`
	Dropped   []int `json:"dropped,omitempty"`
}

// Settings are what a running shim can be told again: the options of its ExecStart= that need no
// restart. All of them count, also those that are zero. Those are left out of the message: a shim
// refuses parameters that it does not know, and an older shim need not know a setting that is not
// used.
type Settings struct {
	Strategy        balance.Strategy `json:"strategy,omitempty"`
	DrainTimeout    time.Duration    `json:"drainTimeoutNSec,omitempty"`
	StartTimeout    time.Duration    `json:"startTimeoutNSec,omitempty"` // for the first instance to become ready
	IdleExit        time.Duration    `json:"idleExitNSec,omitempty"`     // zero: never
	SlowStart       time.Duration    `json:"slowStartNSec,omitempty"`    // zero: a returning instance has its whole share at once
	Weights         []int            `json:"weights,omitempty"`          // by instance number, from 1 on; those after the list have 1
	MaxConnections  int              `json:"maxConnections,omitempty"`   // of an instance, on the handoff path; zero: any number
	ShutdownMessage bool             `json:"shutdownMessage,omitempty"`  // a Node.js program that drains is sent "shutdown", and ends by itself
	ProgramPort     int              `json:"programPort,omitempty"`      // that programs say for the app's address; zero: that address's
}

// Rollout are the parameters of methods Rolling and Rolled.
type Rollout struct {
	PID int `json:"pid"`
}

// Note are the parameters of method Note: a line of a rollout; an empty one takes the last one
// back.
type Note struct {
	Text string `json:"text"`
}

// Addresses is the answer of method Addresses, which costs nothing that grows with instances or
// connections, as Status does: each instance that starts asks.
type Addresses struct {
	Path      string   `json:"path"` // as in Status
	Addresses []string `json:"addresses"`
}

// Status is the answer of method Status.
type Status struct {
	App       string           `json:"app"`
	Path      string           `json:"path"`
	Reason    string           `json:"reason"` // what the path runs on, and why not on better
	Strategy  string           `json:"strategy"`
	Line      string           `json:"status"` // what systemctl status shows
	Addresses []AddressStatus  `json:"addresses"`
	Instances []InstanceStatus `json:"instances"`
	Tampering []Tampering      `json:"tampering,omitempty"` // since the shim started
}

// Tampering is a change that an instance made to something that it shares with others, and that the
// shim undid if possible.
type Tampering struct {
	What  string `json:"what"`
	Times int    `json:"times"`
	Last  int64  `json:"lastUSec"` // CLOCK_REALTIME
}

// AddressStatus is one public address. Counters start when its maps are made and outlive the shim.
type AddressStatus struct {
	Address  string `json:"address"`
	Waiting  int    `json:"waiting"`  // connections at the parking listener now
	Parked   uint64 `json:"parked"`   // connections that waited there so far
	Migrated uint64 `json:"migrated"` // moved away from a listener that nobody served
	Refused  uint64 `json:"refused"`  // while the app stopped
	Unplaced uint64 `json:"unplaced"` // spread by the kernel's hash, as no listener was in the ring's slots
}

// InstanceStatus is one instance.
type InstanceStatus struct {
	Instance    int    `json:"instance"`
	State       string `json:"state"` // up, starting, draining, down, stuck
	PID         int    `json:"pid,omitempty"`
	Connections int    `json:"connections"` // accepted and open; -1 if they cannot be counted here
	Queued      int    `json:"queued"`      // wait to be accepted; on the handoff path ordered or given, and not answered
	Steered     uint64 `json:"steered"`     // connections given to it so far
	Since       int64  `json:"sinceUSec"`   // CLOCK_REALTIME, of its state
	Restarts    *int   `json:"restarts"`    // NRestarts= of its unit; null: a shim that does not say
}
