// A build in GOPATH mode, as old packaging tools do it, does not read go.mod and would get the
// behaviour of go 1.20.
//go:debug default=go1.26

// Lbshim-balancer is what lbshim becomes for the verbs of an app, which are not on the way of each
// instance.
//
//	lbshim serve APP     ExecStart= of APP.service: keeps the ring, watches the instances
//	lbshim rollout APP   ExecReload= of APP.service: puts new code live, one instance after another
//	lbshim resume APP    ExecStartPost= of APP.service: renews the instances on restart
//	lbshim stop APP      ExecStop= of APP.service: closes the port and stops the instances on stop
//	lbshim cleanup APP   ExecStopPost= of APP.service: stops the instances when the app is idle
//	lbshim memory APP    APP-memory.service: restarts instances that have grown too large
//	lbshim agent APP     APP-agent.service: tells load balancers on other machines how the app is on this one
//	lbshim status        unitgen-status.service: tells the program that answers scrapes what balancers say
//	lbshim upgrade       the hook of lbshim's package: has the running balancers go on as the new program
//
// It is not meant to be started by hand: see unitgen(1).
package main

import (
	"os"

	"github.com/unitgen/unitgen/internal/command"
)

// version is set at link time.
var version = "devel"

func main() {
	os.Exit(command.Main(version, verbs()))
}

func theShim(o command.Options) string { return o.App.Service() }

func verbs() []command.Verb {
	return []command.Verb{
		{Name: "serve", Run: serve},
		{Name: "rollout", Run: roll, Unit: theShim},
		{Name: "resume", Run: resume, Unit: theShim},
		{Name: "stop", Run: stop},
		{Name: "cleanup", Run: cleanup},
		{Name: "memory", Run: relieve},
		{Name: "agent", Run: tellHost},
		{Name: "status", AllApps: true, Run: status},
		{Name: "upgrade", AllApps: true, Run: upgrade},
	}
}
