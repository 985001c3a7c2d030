package systemd

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/godbus/dbus/v5"
)

// unitRules returns the match rules of one unit: the changes of its properties, and the ends of its
// jobs. The latter matter for a unit that is loaded and started in one step: the manager announces
// its first changes only by UnitNew (bus_unit_send_change_signal in core/dbus-unit.c). UnitNew
// itself does not serve: reading an unloaded unit loads it, so every answer would cause a signal.
func (l *watchLoop) unitRules(u *watchedUnit) [][]dbus.MatchOption {
	changes := []dbus.MatchOption{dbus.WithMatchSender(busName), dbus.WithMatchObjectPath(u.pathOf)}
	if len(l.wanted(typeInterface(u.state.Name))) == 0 {
		changes = append(changes, dbus.WithMatchInterface(propertyIf), dbus.WithMatchArg(0, unitIf))
	}
	return [][]dbus.MatchOption{
		changes,
		{dbus.WithMatchSender(busName), dbus.WithMatchInterface(managerIf), dbus.WithMatchMember("JobRemoved"), dbus.WithMatchArg(2, u.state.Name)},
	}
}

// allUnitsRules are what unitRules are, for every unit of the host.
func allUnitsRules() [][]dbus.MatchOption {
	return [][]dbus.MatchOption{
		{dbus.WithMatchSender(busName), dbus.WithMatchPathNamespace(managerPath + "/unit")},
		{dbus.WithMatchSender(busName), dbus.WithMatchInterface(managerIf), dbus.WithMatchMember("JobRemoved")},
	}
}

// needed are the match rules that bring the signals about u and that the connection does not have:
// those of the unit, or those for all units if there are too many.
func (l *watchLoop) needed(u *watchedUnit) [][]dbus.MatchOption {
	switch {
	case l.allUnits || u.ownRule:
		return nil
	case l.ownRules >= maxOwnRules:
		l.allUnits = true
		return allUnitsRules()
	}
	u.ownRule = true
	l.ownRules++
	return l.unitRules(u)
}

// match asks for signals by all of rules at once.
func (l *watchLoop) match(ctx context.Context, rules ...[]dbus.MatchOption) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	link, answers := l.link, make(chan error, len(rules))
	for _, rule := range rules {
		go func() { answers <- link.addMatch(ctx, rule...) }() // it ends with ctx
	}
	for range rules {
		if err := <-answers; err != nil {
			return fmt.Errorf("follow signals of systemd: %w", err)
		}
	}
	return nil
}

// wanted are the properties of an interface that are read and reported, of a unit that has run.
func (l *watchLoop) wanted(iface string) []string {
	return slices.DeleteFunc(signalledProperties(iface), func(name string) bool { return !slices.Contains(l.options.Properties, name) })
}

// firstProperties are asked for before the listing. If a unit is started anew meanwhile, its
// invocation is the old one beside a newer state, and whoever waits for another one waits on.
func (l *watchLoop) firstProperties() []string {
	if slices.Contains(l.options.Properties, invocation) {
		return []string{changeTime, invocation}
	}
	return []string{changeTime}
}

// readAtATime is how many units are read together. dbus-daemon lets a connection of the system bus
// wait for 128 answers (max_replies_per_connection), and a unit has ten questions after the first ones at
// most.
const readAtATime = 12

// readUnits asks for the signals of units, so that nothing falls in between, then reads their states
// and queues those that are news. It sends the requests for some units before it waits for answers:
// the manager answers what has reached it before it starts the next unit. So most units that are
// added before they start are read before, and the first questions are all that is asked of each.
func (l *watchLoop) readUnits(ctx context.Context, units []*watchedUnit) error {
	first := l.firstProperties()
	for some := range slices.Chunk(units, readAtATime) {
		var rules [][]dbus.MatchOption
		for _, u := range some {
			rules = append(rules, l.needed(u)...)
		}
		if err := l.match(ctx, rules...); err != nil {
			return err
		}
		readings := make([]reading, len(some))
		names := make([]string, len(some))
		for i, u := range some {
			names[i] = u.state.Name
			readings[i] = reading{u: u, state: UnitState{Name: u.state.Name}, asked: []question{l.link.ask(ctx, u.pathOf, unitIf, first)}}
		}
		listed, err := l.link.listNamed(ctx, names)
		if err != nil {
			return err
		}
		for i := range readings {
			if err := l.first(ctx, &readings[i], listed); err != nil {
				return err
			}
		}
		for _, r := range readings {
			if err := r.take(); err != nil {
				return err
			}
			r.u.state, r.u.read = r.state, r.read
			l.changed(r.u)
		}
	}
	return nil
}

// reading is a unit that is being read.
type reading struct {
	u     *watchedUnit
	state UnitState
	read  dbus.Sequence // of the first answer
	asked []question    // not answered yet
}

// first takes the answers to the first questions and the listed states, and asks for the rest, if the
// unit has any.
func (l *watchLoop) first(ctx context.Context, r *reading, listed map[string]UnitState) error {
	err := r.take()
	if isDBusError(err, "org.freedesktop.DBus.Error.UnknownObject") {
		// No unit can have this name. That is the caller's fault and no reason to give up the
		// connection.
		r.state.LoadState, r.state.ActiveState, r.state.SubState = "error", "inactive", "dead"
		r.asked = nil
		return nil
	}
	if err != nil {
		return err
	}
	wanted := slices.DeleteFunc(l.wanted(unitIf), func(name string) bool { return name == invocation })
	is, ok := listed[r.state.Name]
	if ok {
		r.state.LoadState, r.state.ActiveState, r.state.SubState = is.LoadState, is.ActiveState, is.SubState
	} else { // see listNamed
		wanted = append(listedProperties(), wanted...)
	}
	iface := typeInterface(r.state.Name)
	if ok && r.state.StateChange == 0 && iface != "" {
		r.neverRan(l.wanted(iface))
		return nil
	}
	r.asked = append(r.asked, l.link.ask(ctx, r.u.pathOf, unitIf, wanted))
	if names := l.wanted(iface); len(names) > 0 {
		r.asked = append(r.asked, l.link.ask(ctx, r.u.pathOf, iface, names))
	}
	return nil
}

// neverRan completes the state of a service or socket that had never changed it when it was asked.
// If it has begun to since, as its listed state may say, that is still to be signalled.
func (r *reading) neverRan(wanted []string) {
	r.state.ActiveState, r.state.SubState = "inactive", "dead"
	if slices.Contains(wanted, "Result") {
		r.state.Result = "success"
	}
}

// take takes the answers to all that was asked.
func (r *reading) take() error {
	for _, q := range r.asked {
		values, read, err := q.answers()
		if err != nil {
			return fmt.Errorf("read state of %s: %w", r.state.Name, err)
		}
		if r.read == dbus.NoSequence {
			r.read = read
		}
		r.state.apply(values)
	}
	r.asked = nil
	return nil
}

func (l *watchLoop) handleSignal(ctx context.Context, sig *dbus.Signal) error {
	switch sig.Name {
	case propertyIf + ".PropertiesChanged":
		if u := l.byPath[sig.Path]; u != nil {
			l.applySignal(u, sig)
		}
	case managerIf + ".JobRemoved":
		name, _ := body[string](sig, 2)
		u := l.units[name]
		if u == nil || sig.Sequence < u.read {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		defer cancel()
		// One question where readUnits has several, as nearly always the signals have told all.
		if changed, err := l.link.changed(ctx, u.state); err != nil || !changed {
			return err
		}
		return l.readUnits(ctx, []*watchedUnit{u})
	case managerIf + ".Reloading":
		// Sent with true before and with false after; a unit file that went or came shows in
		// LoadState.
		if active, ok := body[bool](sig, 0); ok && !active {
			return l.resync(ctx)
		}
	case daemonName + ".NameOwnerChanged":
		// The manager connects to the bus again when it executes itself; its changes meanwhile were
		// not signalled. Every connection to a bus gets this signal (see greetBus).
		name, _ := body[string](sig, 0)
		if owner, ok := body[string](sig, 2); ok && name == busName && owner != "" {
			return l.resync(ctx)
		}
	}
	return nil
}

// applySignal applies the properties in a signal: all properties of an interface that can change,
// so nothing has to be read. The manager sends the interface of the type first and that of the unit
// second, so that the state is complete with the second (send_changed_signal in core/dbus-unit.c).
func (l *watchLoop) applySignal(u *watchedUnit, sig *dbus.Signal) {
	iface, _ := body[string](sig, 0)
	values, ok := body[map[string]dbus.Variant](sig, 1)
	if !ok || sig.Sequence < u.read {
		return // it was sent before what was read since
	}
	known := l.wanted(iface)
	if iface == unitIf {
		known = append(append(known, changeTime), listedProperties()...)
	}
	maps.DeleteFunc(values, func(name string, _ dbus.Variant) bool { return !slices.Contains(known, name) })
	u.state.apply(values)
	if iface == unitIf {
		l.changed(u)
	}
}

// body is one value of a signal's body.
func body[T any](sig *dbus.Signal, i int) (value T, ok bool) {
	if i < len(sig.Body) {
		value, ok = sig.Body[i].(T)
	}
	return value, ok
}
