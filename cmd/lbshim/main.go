// A build in GOPATH mode, as old packaging tools do it, does not read go.mod and would get the
// behaviour of go 1.20.
//go:debug default=go1.26

// Lbshim is the balancer of one app and, under other verbs, the small commands that the app's units
// run. This program has those that every start and stop of an instance runs. For all others it
// becomes lbshim-balancer, which is installed beside it (see package command).
//
//	lbshim join APP [I]  APP-join.service, APP-join@I.service: gives the listeners of all instances, or of I, to the shim
//	lbshim connect APP I ExecStartPre= of APP@I.service: gives an instance's channel of the handoff path to it
//	lbshim exec APP I -- COMMAND…
//	                     ExecStart= of APP@I.service: has the program's bind() answered, or connects a Node.js program with
//	                     the shim, and becomes it
//	lbshim answer APP I PORT
//	                     started by exec: answers bind() of the program with the instance's listeners
//	lbshim ready APP I   ExecStartPost= of APP@I.service: waits until the instance accepts connections
//	lbshim drain APP I   ExecStop= of APP@I.service: takes the instance off the ring and waits for its connections
//	lbshim backoff APP I ExecStopPost= of APP@I.service: delays the restart of an instance that fails again
//
// It is not meant to be started by hand: see unitgen(1).
package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/bindnotify"
	"github.com/unitgen/unitgen/internal/command"
)

// version is set at link time.
var version = "devel"

func main() {
	if len(os.Args) > 1 && os.Args[1] == bindnotify.Verb {
		os.Exit(answer(&command.Env{Args: os.Args, Getenv: os.Getenv, Stderr: os.Stderr}))
	}
	if !ours(os.Args[1:]) {
		command.Own().LastWords().Error(becomeBalancer().Error())
		os.Exit(command.ExitExec)
	}
	os.Exit(command.Main(version, verbs()))
}

// ours says that the first word that is no option is a verb of this program.
func ours(args []string) bool {
	i := slices.IndexFunc(args, func(word string) bool { return !strings.HasPrefix(word, "-") })
	return i >= 0 && slices.ContainsFunc(verbs(), func(v command.Verb) bool { return v.Name == args[i] })
}

// becomeBalancer has the other program do what this one was started for. On success it does not
// return.
func becomeBalancer() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	program = filepath.Join(filepath.Dir(program), "lbshim-balancer")
	return &os.PathError{Op: "execute", Path: program, Err: unix.Exec(program, os.Args, os.Environ())}
}

func theInstance(o command.Options) string { return o.App.Instance(o.Instance) }

func theJoin(o command.Options) string {
	if o.Instance == 0 {
		return o.App.JoinAll()
	}
	return o.App.Join(o.Instance)
}

func verbs() []command.Verb {
	return []command.Verb{
		{Name: "join", Instance: true, MaybeAll: true, Run: join, Unit: theJoin},
		{Name: "connect", Instance: true, Run: connect, Unit: theInstance},
		{Name: "exec", Instance: true, Command: true, Run: execute},
		{Name: "ready", Instance: true, Run: ready, Unit: theInstance},
		{Name: "drain", Instance: true, Run: drain},
		{Name: "backoff", Instance: true, Run: backOff},
	}
}
