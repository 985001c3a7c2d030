package control

// Methods that concern the whole app on this host.
const (
	MethodHost        = "Host"        // nothing; Host
	MethodDrainHost   = "DrainHost"   // HostDrain; Host
	MethodHostDrained = "HostDrained" // nothing; Host when no connection is open, and the front has had time to notice
)

// Host is how the app is on this host, for a load balancer on another one.
type Host struct {
	App         string `json:"app"`
	State       string `json:"state"`       // up, drain, maint or down, as package agent has them
	Weight      int    `json:"weight"`      // percent of the instances, by their weights, that take connections
	Instances   int    `json:"instances"`   // that the app has here
	Up          int    `json:"up"`          // of them, those that take connections
	Connections int    `json:"connections"` // open; -1 if they cannot be counted here
	Drained     int64  `json:"drainedUSec"` // CLOCK_REALTIME, when the drain began; zero: the host is not drained
}

// HostDrain are the parameters of method DrainHost.
type HostDrain struct {
	Drain bool `json:"drain"` // begins a drain, or ends it
}
