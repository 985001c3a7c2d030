package systemd

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// unitRules returns the match rules of one unit: the changes of its properties, and the ends of its
// jobs. The latter matter for a unit that is loaded and started in one step: the manager announces
// its first changes only by UnitNew (bus_unit_send_change_signal in core/dbus-unit.c). UnitNew
// itself does not serve: reading an unloaded unit loads it, so every answer would cause a signal.
func (l *watchLoop) unitRules(u *watchedUnit) [][]dbus.MatchOption {
	changes := []dbus.MatchOption{dbus.WithMatchSender(busName), dbus.WithMatchObjectPath(u.pathOf)}
	if l.options.UnitOnly {
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

// addRules requests the signals about u: by the unit's rules, or by those for all units if there
// are too many.
func (l *watchLoop) addRules(ctx context.Context, u *watchedUnit) error {
	if l.allUnits || u.ownRule {
		return nil
	}
	own := 0
	for _, v := range l.units {
		if v.ownRule {
			own++
		}
	}
	rules := l.unitRules(u)
	if own >= maxOwnRules {
		rules, l.allUnits = allUnitsRules(), true
	} else {
		u.ownRule = true
	}
	for _, rule := range rules {
		if err := l.match(ctx, rule); err != nil {
			return err
		}
	}
	return nil
}

func (l *watchLoop) match(ctx context.Context, rule []dbus.MatchOption) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if err := l.link.addMatch(ctx, rule...); err != nil {
		return fmt.Errorf("follow signals of systemd: %w", err)
	}
	return nil
}

// readUnit reads the state of u and queues it if it is news.
func (l *watchLoop) readUnit(ctx context.Context, u *watchedUnit) error {
	state := UnitState{Name: u.state.Name}
	first := dbus.NoSequence
	interfaces := []string{unitIf}
	if !l.options.UnitOnly {
		interfaces = append(interfaces, typeInterface(state.Name))
	}
	for _, iface := range interfaces {
		values, read, err := l.link.properties(ctx, u.pathOf, iface, watchedProperties(iface))
		if isDBusError(err, "org.freedesktop.DBus.Error.UnknownObject") {
			// No unit can have this name. That is the caller's fault and no reason to give up the
			// connection.
			state.LoadState, state.ActiveState, state.SubState = "error", "inactive", "dead"
			break
		}
		if err != nil {
			return fmt.Errorf("read state of %s: %w", state.Name, err)
		}
		if first == dbus.NoSequence {
			first = read
		}
		state.apply(values)
	}
	u.state, u.read = state, first
	l.changed(u)
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
		// One question where readUnit asks a dozen, as nearly always the signals have told all.
		if changed, err := l.link.changed(ctx, u.state); err != nil || !changed {
			return err
		}
		return l.readUnit(ctx, u)
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
	if iface != unitIf && l.options.UnitOnly {
		return // from the manager's own socket, which sends all
	}
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
