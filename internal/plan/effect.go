package plan

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
)

// Effect is what a running app needs before a change to its files counts, as a verb of systemctl.
type Effect string

const (
	EffectNone    Effect = ""        // daemon-reload was enough, or what unitgen did beside it
	EffectReload  Effect = "reload"  // a rollout: new instances, and the shim takes over its options
	EffectRestart Effect = "restart" // a new process for the shim
	EffectRenew   Effect = "renew"   // new sockets: a restart keeps them
)

// Command is what the user pastes; systemctl has its options and a blank behind it.
func (e Effect) Command(systemctl string, name app.Name) string {
	if e == EffectRenew {
		return fmt.Sprintf("%sstop %s && %[1]sstart %[2]s", systemctl, name)
	}
	return fmt.Sprintf("%s%s %s", systemctl, e, name)
}

// Effect says what the changes of p need: the most that one of them does.
func (p *Plan) Effect() Effect {
	if p.Was == nil {
		return EffectNone
	}
	most := EffectNone
	for _, c := range p.Changes {
		if c.Target != "" {
			continue
		}
		if e := p.effectOf(c); e.rank() > most.rank() {
			most = e
		}
	}
	return most
}

// rank orders effects: each does what those below it do.
func (e Effect) rank() int {
	return slices.Index([]Effect{EffectNone, EffectReload, EffectRestart, EffectRenew}, e)
}

func (p *Plan) effectOf(c Change) Effect {
	name, old := p.App.Name, c.Old
	file, err := filepath.Rel(p.site.Dir, c.Path)
	instance, pin := name.ParsePin(file)
	switch {
	case err != nil:
		return EffectNone
	case pin && (slices.Contains(p.Add, instance) || slices.Contains(p.Drop, instance)):
		return EffectNone // it starts with it, or is gone
	case pin:
		return EffectReload
	case file == name.InstanceTemplate():
		if setting(old, "User") != setting(c.Text, "User") && len(p.App.SharedDirectories()) > 0 {
			// PID 1 gives the directories to the new user when the first instance of it starts: the
			// old ones must be gone.
			return EffectRestart
		}
		if held(old) != held(c.Text) || setting(old, "ExecStart") != setting(c.Text, "ExecStart") {
			return EffectReload
		}
		return EffectNone
	case file == name.Service():
		return shimEffect(old, c.Text)
	case old == "" || isTrigger(name, file):
		return EffectNone
	case file == name.JoinAll() || file == name.JoinTemplate():
		return EffectNone // they count for listeners that are yet to come
	case c.Text == "": // links, of instances that scale starts and stops
		return EffectNone
	case strings.HasSuffix(file, ".socket"):
		if held(old) == held(c.Text) {
			return EffectNone
		}
		return EffectRenew
	}
	return EffectRestart
}

// isTrigger knows the units beside the app's own, which are started again when they change.
func isTrigger(name app.Name, file string) bool {
	switch file {
	case name.AgentService(), name.AgentSocket(), name.MemoryService(), name.MemoryTimer(), name.MetricsService(), name.MetricsSocket(), name.ReloadService(), name.ReloadTimer(), name.ReloadPath():
		return true
	}
	return false
}

// shimEffect compares two texts of app.service. A rollout gives the shim its new options, except
// those that need privileges, which a running process cannot get.
func shimEffect(old, text string) Effect {
	oldOptions, newOptions := setting(old, "ExecStart"), setting(text, "ExecStart")
	oldProgram, _, _ := strings.Cut(oldOptions, " ")
	newProgram, _, _ := strings.Cut(newOptions, " ")
	// Dropping a capability can wait for the next restart.
	needs := strings.Fields(setting(text, "AmbientCapabilities"))
	had := strings.Fields(setting(old, "AmbientCapabilities"))
	gains := slices.ContainsFunc(needs, func(c string) bool { return !slices.Contains(had, c) })
	switch {
	case held(old) != held(text), oldProgram != newProgram, gains:
		return EffectRestart
	case oldOptions != newOptions:
		return EffectReload
	}
	return EffectNone
}

// held returns the settings of a unit that take effect only when its process starts again. The
// command and the capabilities are left out because callers compare them. Other settings are left
// out because PID 1 reads them when it needs them, because they stand elsewhere too (section
// [X-Unitgen]), or because they change with the listeners only (BindIPv6Only=).
func held(text string) string {
	text, _, _ = strings.Cut(text, "\n["+app.SettingsSection+"]\n")
	socket := strings.Contains(text, "\n[Socket]\n")
	var b strings.Builder
	for line := range strings.Lines(text) {
		key, _, _ := strings.Cut(line, "=")
		switch key {
		case "Description", "Documentation", "Wants", "After", "Before", "ExecReload", "ExecStop", "ExecStopPost", "KillSignal", "TimeoutStartSec", "TimeoutStopSec", "Restart",
			"RestartSec", "RestartSteps", "RestartMaxDelaySec", "RestartPreventExitStatus", "SuccessExitStatus",
			"StartLimitIntervalSec", "StartLimitBurst", "WantedBy", "Also", "ExecStart",
			"AmbientCapabilities", "CapabilityBoundingSet", "BindIPv6Only":
			continue
		case "RuntimeDirectory": // PID 1 removes that of a socket when it closes it
			if socket {
				continue
			}
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
