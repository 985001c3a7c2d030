package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
)

// effect is what a running app needs before a change to its files counts, as a verb of systemctl.
type effect string

const (
	effectNone    effect = ""        // daemon-reload was enough, or what unitgen did beside it
	effectReload  effect = "reload"  // a rollout: new instances, and the shim takes over its options
	effectRestart effect = "restart" // a new process for the shim
	effectRenew   effect = "renew"   // new sockets: a restart keeps them
)

// command is what the user pastes; systemctl has its options and a blank behind it.
func (e effect) command(systemctl string, name app.Name) string {
	if e == effectRenew {
		return fmt.Sprintf("%sstop %s && %[1]sstart %[2]s", systemctl, name)
	}
	return fmt.Sprintf("%s%s %s", systemctl, e, name)
}

// effect says what the changes of p need: the most that one of them does.
func (p *plan) effect(s site) effect {
	if p.was == nil {
		return effectNone
	}
	most := effectNone
	for _, c := range p.changes {
		if c.target != "" {
			continue
		}
		if e := p.effectOf(s, c); e.rank() > most.rank() {
			most = e
		}
	}
	return most
}

// rank orders effects: each does what those below it do.
func (e effect) rank() int {
	return slices.Index([]effect{effectNone, effectReload, effectRestart, effectRenew}, e)
}

func (p *plan) effectOf(s site, c change) effect {
	name := p.app.Name
	old := p.text(s, c.path)
	file, err := filepath.Rel(s.dir, c.path)
	instance, pin := name.ParsePin(file)
	switch {
	case err != nil:
		return effectNone
	case pin && (slices.Contains(p.add, instance) || slices.Contains(p.drop, instance)):
		return effectNone // it starts with it, or is gone
	case pin:
		return effectReload
	case file == name.InstanceTemplate():
		if setting(old, "User") != setting(c.text, "User") && len(p.app.SharedDirectories()) > 0 {
			// PID 1 gives the directories to the new user when the first instance of it starts: the old ones must be gone.
			return effectRestart
		}
		if held(old) != held(c.text) || setting(old, "ExecStart") != setting(c.text, "ExecStart") {
			return effectReload
		}
		return effectNone
	case file == name.Service():
		return p.shimEffect(old, c.text)
	case old == "" || isTrigger(name, file):
		return effectNone
	case c.text == "": // links, of instances that scale starts and stops
		return effectNone
	case strings.HasSuffix(file, ".socket"):
		if held(old) == held(c.text) {
			return effectNone
		}
		return effectRenew
	}
	return effectRestart
}

// isTrigger knows the units beside the app's own, which armTriggers starts anew.
func isTrigger(name app.Name, file string) bool {
	switch file {
	case name.MemoryService(), name.MemoryTimer(), name.ReloadService(), name.ReloadTimer(), name.ReloadPath():
		return true
	}
	return false
}

// shimEffect compares two texts of app.service. The shim takes over its options in a rollout, all but those that need
// privileges which a running process cannot get.
func (p *plan) shimEffect(old, text string) effect {
	oldOptions, newOptions := setting(old, "ExecStart"), setting(text, "ExecStart")
	oldProgram, _, _ := strings.Cut(oldOptions, " ")
	newProgram, _, _ := strings.Cut(newOptions, " ")
	// A capability that is no longer needed can wait for the next restart.
	needs := strings.Fields(setting(text, "AmbientCapabilities"))
	had := strings.Fields(setting(old, "AmbientCapabilities"))
	gains := slices.ContainsFunc(needs, func(c string) bool { return !slices.Contains(had, c) })
	switch {
	case held(old) != held(text), oldProgram != newProgram, gains:
		return effectRestart
	case oldOptions != newOptions:
		return effectReload
	}
	return effectNone
}

// held are the lines of a unit that what runs keeps until it is started anew, but for its command and its
// capabilities, which the callers compare, and what a socket says of IPv6, which changes with its listeners or not at all. What else is left out PID 1 reads when it needs it, and what section
// [X-Unitgen] says is written out elsewhere too.
func held(text string) string {
	text, _, _ = strings.Cut(text, "\n["+app.SettingsSection+"]\n")
	var b strings.Builder
	for line := range strings.Lines(text) {
		key, _, _ := strings.Cut(line, "=")
		switch key {
		case "Description", "Documentation", "ExecReload", "ExecStop", "ExecStopPost", "KillSignal", "TimeoutStartSec", "TimeoutStopSec", "Restart",
			"RestartSec", "RestartSteps", "RestartMaxDelaySec", "RestartPreventExitStatus", "SuccessExitStatus",
			"StartLimitIntervalSec", "StartLimitBurst", "WantedBy", "Also", "ExecStart",
			"AmbientCapabilities", "CapabilityBoundingSet", "BindIPv6Only":
			continue
		}
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// setting is the value of the first line KEY=VALUE.
func setting(text, key string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, key+"="); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
