package main

import (
	"cmp"
	"context"
	"slices"
)

// target is what a fault hits.
type target int

const (
	theMachine target = iota
	anApp
	anInstance
)

// fault is one row of the table.
type fault struct {
	name  string
	what  string // what it does, and what it may cost
	hits  target
	do    func(context.Context, *world, step, act) error
	often int  // how many times as likely it is drawn as others; zero: 1
	slow  bool // other faults are to fall into it
	lasts bool // for act.length
	reads bool // PID 1 reads all units again meanwhile, and answers nobody
	// repeats says that it is done act.times times in a row, or in the manner of that number.
	repeats bool
	// spoils are the faults on the same app, or on all apps if this one hits the machine, that may
	// fail in the same step: their command may say that it did not succeed. It must not say that it
	// did if it did not.
	spoils []string
}

// faults are all that happen. An error of a row's function says that the system did not do as it
// promises, unless another act of the step spoils it. No row may cost a request, but kill-instance
// those which that instance had accepted, and stop-start connections while the app is stopped. A
// reload that falls into a stop cancels its job, as PID 1 does to any service (job mode replace):
// then stop-start may cost what waits at the port too; see ARCHITECTURE.md. The start of a shim
// after a crash starts all instances, and so cancels the stop of one; see docs/limits.md.
var faults = []fault{
	{name: "reload", hits: anApp, often: 4, slow: true, do: reload, spoils: []string{"stop-start"},
		what: "systemctl reload: all instances are new"},
	{name: "restart", hits: anApp, slow: true, do: restart, spoils: verbs,
		what: "systemctl restart: all instances are new"},
	{name: "stop-start", hits: anApp, slow: true, lasts: true, do: stopStart, spoils: verbs,
		what: "systemctl stop, and start a while later: connections are refused in between"},
	{name: "grow", hits: anApp, slow: true, reads: true, do: grow,
		what: "one instance more"},
	{name: "shrink", hits: anApp, slow: true, reads: true, do: shrink, spoils: []string{"restart-one", "stop-start-one"},
		what: "one instance less"},
	{name: "restart-one", hits: anInstance, often: 2, slow: true, do: restartOne, spoils: []string{"reload", "restart-one", "stop-start-one"},
		what: "systemctl restart of an instance"},
	{name: "stop-start-one", hits: anInstance, slow: true, lasts: true, do: stopStartOne, spoils: verbs,
		what: "systemctl stop of an instance, and start a while later"},
	{name: "broken-release", hits: anApp, slow: true, repeats: true, do: brokenRelease, spoils: verbs,
		what: "systemctl reload of a program that ends at once (x1, x2) or never gets ready (x3): it fails, the old one serves"},

	{name: "kill-shim", hits: anApp, often: 3, repeats: true, do: killShim, spoils: []string{"reload", "restart", "broken-release", "stop-start-one"},
		what: "kill -9 of the shim, up to three in a row"},
	{name: "kill-rollout", hits: anApp, do: killRollout, spoils: []string{"reload"},
		what: "kill -9 of the process that rolls a reload"},
	{name: "kill-instance", hits: anInstance, often: 2, do: killInstance, spoils: verbs,
		what: "kill -9 of an instance: the requests that it had accepted"},
	{name: "freeze-instance", hits: anInstance, lasts: true, do: freezeInstance,
		what: "SIGSTOP of an instance, and SIGCONT"},
	{name: "freeze-shim", hits: anApp, lasts: true, do: freezeShim,
		what: "SIGSTOP of the shim, and SIGCONT"},

	{name: "kill-dbus", do: killBus, spoils: []string{"forged-signals"},
		what: "kill -9 of the message bus"},
	{name: "freeze-dbus", lasts: true, do: freezeBus,
		what: "SIGSTOP of the message bus, and SIGCONT"},
	{name: "daemon-reload", reads: true, do: daemonReload,
		what: "systemctl daemon-reload"},
	{name: "daemon-reexec", reads: true, do: daemonReexec, spoils: append([]string{"daemon-reload", "daemon-reexec"}, verbs...),
		what: "systemctl daemon-reexec: systemctl commands lose their connection"},
	{name: "full-disk", lasts: true, repeats: true, do: fullDisk, spoils: append([]string{"forged-signals", "flood"}, verbs...),
		what: "no space on the disk (x1), and in /run too (x2, x3)"},
	{name: "forged-signals", lasts: true, do: forgedSignals,
		what: "a user without rights sends the shims signals that claim to be PID 1's"},
	{name: "flood", lasts: true, do: flood,
		what: "a user without rights connects to every socket and sends garbage"},
}

// verbs are the faults that are commands of an admin.
var verbs = []string{"reload", "restart", "stop-start", "grow", "shrink", "restart-one", "stop-start-one", "broken-release"}

// slow and quick are what is drawn from.
var slow, quick = rows(true), rows(false)

func rows(slow bool) []*fault {
	var some []*fault
	for i := range faults {
		for range cmp.Or(faults[i].often, 1) {
			if faults[i].slow == slow {
				some = append(some, &faults[i])
			}
		}
	}
	return some
}

// spoiled says whether a may fail because of another act of its step.
func (s step) spoiled(a act) bool {
	return slices.ContainsFunc(s.acts, func(other act) bool {
		return other != a && (other.app == a.app || other.app == "" || a.app == "") && slices.Contains(other.fault.spoils, a.fault.name)
	})
}

// merges says whether another act of the step may take the place of a's job, or change what that
// acts on: then its success says nothing.
func (s step) merges(a act, names ...string) bool {
	return slices.ContainsFunc(s.acts, func(other act) bool {
		return other != a && other.app == a.app && slices.Contains(names, other.fault.name)
	})
}

// has says whether the step does one of names to app.
func (s step) has(app string, names ...string) bool {
	return slices.ContainsFunc(s.acts, func(a act) bool { return a.app == app && slices.Contains(names, a.fault.name) })
}
