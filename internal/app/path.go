package app

import (
	"cmp"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/program"
)

// DataPath is how connections reach the instances: as asked for, or the best that the settings
// allow.
func (a App) DataPath() Path {
	if a.Path != "" && a.Path != PathAuto {
		return a.Path
	}
	if a.Kind == KindHandoff || a.steerCannot() != "" {
		return PathHandoff
	}
	return PathSteer
}

// BindAnswered reports whether bind(2) of the program is answered with the instance's listeners:
// wherever the instances have listeners, and the program is not known to take them another way.
func (a App) BindAnswered() bool {
	return (a.Kind == "" || a.Kind == KindBind || a.Kind == KindNode) && a.DataPath() == PathSteer
}

// steerCannot says what of the settings the steer path cannot do; empty if it can do all.
func (a App) steerCannot() string {
	if i := slices.IndexFunc(a.Listen, Listen.IsUnix); i >= 0 {
		return "--listen=" + a.Listen[i].String()
	}
	if a.Kind == KindNode && a.strategyNeeds() != "" {
		return "--strategy=" + string(a.Strategy)
	}
	return ""
}

// strategyNeeds says what the strategy takes on the steer path that the app's units cannot have;
// empty if nothing.
func (a App) strategyNeeds() string {
	switch {
	case !a.UserUnits && !a.ClassicBPF:
		return ""
	case a.Strategy.CountsConnections():
		return "CAP_NET_ADMIN to count connections"
	case a.Strategy == balance.SourceHash:
		return "CAP_BPF to read client addresses"
	}
	return ""
}

// StrategyOrDefault returns the strategy in use. The default of the handoff path, which knows the
// exact number of open connections, is balance.LeastConnections; the default of the steer path is
// balance.RoundRobin.
func (a App) StrategyOrDefault() balance.Strategy {
	if a.DataPath() == PathHandoff {
		return cmp.Or(a.Strategy, balance.LeastConnections)
	}
	return cmp.Or(a.Strategy, balance.RoundRobin)
}

func (a App) checkKind(found *inputErrors) {
	switch {
	case a.Kind == KindBind && a.DataPath() == PathHandoff:
		found.addf("--kind=handoff", "--kind=bind does not go with %s", cmp.Or(a.steerCannot(), "--path=handoff"))
	case a.Kind == KindNode:
		if i := slices.IndexFunc(a.Listen, func(l Listen) bool { return strings.HasPrefix(l.Unix, "@") }); i >= 0 {
			found.addf("", "--listen=%s has no path, which Node.js programs need", a.Listen[i])
		}
	}
}

func (a App) checkPath(found *inputErrors) {
	if a.Path != PathSteer {
		return
	}
	if what := a.steerCannot(); what != "" {
		found.addf("--path=handoff", "%s is not possible on the steer path", what)
	}
	if a.Kind == KindHandoff {
		found.addf("--path=handoff", "--kind=handoff does not go with --path=steer")
	}
}

// checkServer checks whether a known server can take what the path gives it.
func (a App) checkServer(found *inputErrors) {
	if name := program.Server(a.Command); a.DataPath() == PathHandoff && a.Kind != KindHandoff && a.Kind != KindNode && takesListeners(name) {
		found.addf("--listen=127.0.0.1:3000", "%s takes the handoff path, on which %s would never get a connection: it takes listeners",
			cmp.Or(a.steerCannot(), "--path=handoff"), name)
	}
}

// takesListeners knows servers that accept for themselves, by name. They can be given a listener,
// but not connections.
func takesListeners(server string) bool {
	switch server {
	case "gunicorn", "uvicorn", "hypercorn", "daphne", "granian", "waitress-serve", "uwsgi", "puma", "pumactl", "rackup", "unicorn", "falcon",
		"thin", "starman", "plackup", "nginx", "caddy", "apache2", "httpd", "haproxy", "lighttpd", "java", "php-fpm", "redis-server", "deno", "bun":
		return true
	}
	return false
}

func (a App) checkProgramPort(found *inputErrors) {
	if slices.ContainsFunc(a.Listen, func(l Listen) bool { return l.Port != a.Listen[0].Port }) {
		found.addf("", "--program-port= goes with one port of --listen=, got %d and others", a.Listen[0].Port)
	}
}

// maxMaxConnections is LimitNOFILE= of the instances.
const maxMaxConnections = 524288

func (a App) checkStrategy(found *inputErrors) {
	if a.Strategy == balance.SourceHash {
		if i := slices.IndexFunc(a.Listen, Listen.IsUnix); i >= 0 {
			found.addf("--strategy=least-connections", "--strategy=source-hash does not go with --listen=%s: clients of a unix socket have no address", a.Listen[i])
		}
	}
	if needs := a.strategyNeeds(); needs != "" && a.DataPath() == PathSteer && a.Kind != KindNode {
		without := "a user's units cannot have"
		if a.ClassicBPF {
			without = "--classic-bpf does without"
		}
		found.addf("--strategy=round-robin", "--strategy=%s needs %s, which %s", a.Strategy, needs, without)
	}
}

// handoffWarning is for a path that was not asked for: not every program can do it.
func (a App) handoffWarning() (warning string, ok bool) {
	if a.DataPath() != PathHandoff || a.Kind == KindHandoff || a.Kind == KindNode || a.Path == PathHandoff {
		return "", false
	}
	return a.steerCannot() + " takes the handoff path: the program must get its connections through package activation of unitgen " +
		"(--kind=handoff says that it does)", true
}
