package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/systemd"
)

// systemctl is the command that does words, in the manager whose units they are.
func (e *examination) systemctl(words string) string {
	if e.Live.Site.UserUnits {
		return "systemctl --user " + words
	}
	return "systemctl " + words
}

// listeners finds what keeps an app that is stopped from its addresses.
func (e *examination) listeners(ctx context.Context) (found bool) {
	for _, l := range e.app.Listen {
		if e.taken(ctx, "--listen=", l, "the app cannot start") {
			found = true
		}
	}
	return found
}

// beside finds what keeps the app from the addresses that it has beside its own, where PID 1 does
// not listen there.
func (e *examination) beside(ctx context.Context) (found bool, err error) {
	for _, b := range []struct {
		listen              app.Listen
		unit, option, after string
	}{
		{e.app.Agent, e.name.AgentSocket(), "--agent=", "load balancers do not learn its state"},
		{e.app.Metrics, e.name.MetricsSocket(), "--metrics=", "nobody can read its metrics"},
	} {
		if b.listen == (app.Listen{}) {
			continue
		}
		u, err := e.manager.Conn.Unit(ctx, b.unit)
		if err != nil {
			return found, err
		}
		if u.ActiveState != "active" && e.taken(ctx, b.option, b.listen, b.after) {
			found = true
		}
	}
	return found, nil
}

// taken reports whether another program has an address, and adds who.
func (e *examination) taken(ctx context.Context, option string, l app.Listen, consequence string) bool {
	if err := socketPath(e.Live.Site.Root, option, l); err != nil {
		e.add("ls -l "+app.ShellWord(l.Unix), "%v", err)
		return true
	}
	if !errors.Is(port(l), unix.EADDRINUSE) {
		return false
	}
	if h, ok := explain.FindHolder(int(l.Port)); ok && e.owns(h.Unit) {
		return false // an instance that has outlived its balancer
	}
	holder := cmp.Or(e.manager.Question(e.name).Holder(ctx, int(l.Port)), "another program")
	if e.owns(holder) {
		return false
	}
	of := ""
	if option != "--listen=" {
		of = " of " + option
	}
	e.add(fmt.Sprintf("ss -ltnp 'sport = :%d'", l.Port), "%s holds port %d%s, so %s", holder, l.Port, of, consequence)
	return true
}

// owns reports whether a unit is the app's.
func (e *examination) owns(unit string) bool {
	_, mine := e.name.ParseUnit(unit)
	return mine
}

// balancer finds a balancer that fails. One that is not up just now costs a wait of at most
// patience: it may have been killed, and be up again in a moment. Its count of restarts does not
// help, as each connection to its control socket starts it anew.
func (e *examination) balancer(ctx context.Context) (fails bool, err error) {
	over := time.NewTimer(patience)
	defer over.Stop()
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		u, err := e.manager.Conn.Unit(ctx, e.name.Service())
		if err != nil || u.Up() || isLimit(u) || u.ActiveState == "inactive" && !u.AwaitsRestart() && u.JobType == "" {
			return false, err
		}
		if u.Failed() && u.Result != "signal" {
			e.add("journalctl -e -u "+u.Name, "its balancer fails: %s", cmp.Or(explain.State(u), "see its journal"))
			return true, nil
		}
		select {
		case <-tick.C:
		case <-over.C:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// failures finds units of the app that have failed, other than its instances: those that PID 1
// starts no more as they were started too often, and those that failed otherwise. taken means that
// an address is not free, so that why a socket failed is known.
func (e *examination) failures(ctx context.Context, taken bool) error {
	loaded, err := e.manager.Conn.ListUnits(ctx, append(e.name.Units(), string(e.name)+"@*", string(e.name)+"-join@*")...)
	if err != nil {
		return err
	}
	var limited []string
	for _, listed := range loaded {
		if listed.ActiveState != "failed" {
			continue
		}
		u, err := e.manager.Conn.Unit(ctx, listed.Name)
		if err != nil {
			return err
		}
		unit, _ := e.name.ParseUnit(u.Name)
		switch {
		case isLimit(u):
			limited = append(limited, u.Name)
		case unit.Role == app.RoleInstance, unit.Role == app.RoleShim, taken && strings.HasSuffix(u.Name, ".socket"):
		default:
			e.add("journalctl -e -u "+u.Name, "%s has failed: %s", u.Name, cmp.Or(explain.State(u), "see its journal"))
		}
	}
	if len(limited) > 0 {
		// The service first: its limit is why the sockets fail that start it.
		slices.SortFunc(limited, func(a, b string) int {
			return cmp.Or(cmp.Compare(filepath.Ext(a), filepath.Ext(b)), cmp.Compare(a, b))
		})
		fix := e.systemctl("reset-failed "+e.resettable(limited)+" && ") + e.systemctl("start "+string(e.name))
		if slices.Contains(limited, e.name.Service()) {
			// The listeners that the balancer had are lost to the next one, unless they are new.
			fix = e.systemctl("stop "+app.ShellWord(string(e.name)+"@*")+"; ") + fix
		}
		e.add(fix,
			"PID 1 starts %s no more: too many starts in too short a time (%s)", strings.Join(limited, ", "), e.limits(ctx, limited[0]))
	}
	return nil
}

// resettable is what to name so that PID 1 forgets the failures of units: instances by a pattern.
func (e *examination) resettable(units []string) string {
	var words []string
	for _, unit := range units {
		if u, _ := e.name.ParseUnit(unit); u.Instance > 0 {
			unit = app.ShellWord(string(e.name) + "@*")
		}
		if !slices.Contains(words, unit) {
			words = append(words, unit)
		}
	}
	return strings.Join(words, " ")
}

// isLimit reports whether PID 1 starts a unit no more because of a limit (enum SocketResult and
// ServiceResult of systemd).
func isLimit(u systemd.UnitState) bool {
	switch u.Result {
	case "start-limit-hit", "trigger-limit-hit", "service-start-limit-hit":
		return true
	}
	return false
}

// limits says which limit a unit has.
func (e *examination) limits(ctx context.Context, name string) string {
	values, err := e.manager.Conn.Properties(ctx, name, "StartLimitBurst", "StartLimitIntervalUSec", "Result")
	if err != nil {
		return "StartLimitIntervalSec="
	}
	burst, _ := values["StartLimitBurst"].(uint32)
	interval, _ := values["StartLimitIntervalUSec"].(uint64)
	switch {
	case values["Result"] == "trigger-limit-hit":
		return "TriggerLimitIntervalSec="
	case values["Result"] == "service-start-limit-hit":
		return "StartLimitIntervalSec= of its service"
	}
	return fmt.Sprintf("StartLimitBurst=%d, StartLimitIntervalSec=%s", burst, app.FormatTimeSpan(time.Duration(interval)*time.Microsecond))
}
