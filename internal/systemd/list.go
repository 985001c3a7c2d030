package systemd

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"github.com/unitgen/unitgen/internal/app"
)

// ListUnits lists the loaded units whose names match any of the shell patterns. Units that are not
// loaded are missing, which includes every inactive unit without references. The states have the
// fields of a listing: Name, LoadState, ActiveState, SubState and JobType.
func (c *Conn) ListUnits(ctx context.Context, patterns ...string) ([]UnitState, error) {
	var listed []systemd.UnitStatus
	if err := c.call(ctx, "ListUnitsByPatterns", []any{[]string{}, patterns}, &listed); err != nil {
		return nil, fmt.Errorf("list units: %w", err)
	}
	return unitStates(listed), nil
}

func unitStates(listed []systemd.UnitStatus) []UnitState {
	units := make([]UnitState, len(listed))
	for i, u := range listed {
		units[i] = UnitState{Name: u.Name, LoadState: u.LoadState, ActiveState: u.ActiveState, SubState: u.SubState, JobType: u.JobType}
	}
	return units
}

// listNamed lists units by their names, with ListUnits's fields. A name is missing if it is another
// unit's alias, and all are if the manager does not take one of them.
func (l *link) listNamed(ctx context.Context, names []string) (map[string]UnitState, error) {
	var listed []systemd.UnitStatus
	err := l.call(ctx, "ListUnitsByNames", []any{names}, &listed)
	if err != nil && !isDBusError(err, "org.freedesktop.DBus.Error.InvalidArgs") {
		return nil, fmt.Errorf("list units: %w", err)
	}
	units := make(map[string]UnitState, len(listed))
	for _, u := range unitStates(listed) {
		units[u.Name] = u
	}
	return units, nil
}

// Instance is a loaded unit of one instance of an app.
type Instance struct {
	UnitState // as ListUnits has it
	Number    int
}

// Instances lists the loaded services of an app's instances by number: all, or those among numbers.
func (c *Conn) Instances(ctx context.Context, name app.Name, numbers ...int) ([]Instance, error) {
	var patterns []string
	for _, number := range numbers {
		patterns = append(patterns, name.Instance(number))
	}
	if len(numbers) == 0 {
		patterns = []string{string(name) + "@*.service"}
	}
	return c.instances(ctx, name, app.RoleInstance, patterns...)
}

// InstanceSockets lists the loaded sockets of an app's instances by number.
func (c *Conn) InstanceSockets(ctx context.Context, name app.Name) ([]Instance, error) {
	return c.instances(ctx, name, app.RoleInstanceSocket, string(name)+"@*.socket")
}

func (c *Conn) instances(ctx context.Context, name app.Name, role app.Role, patterns ...string) ([]Instance, error) {
	units, err := c.ListUnits(ctx, patterns...)
	if err != nil {
		return nil, fmt.Errorf("list instances of %s: %w", name, err)
	}
	var all []Instance
	for _, u := range units {
		if unit, ok := name.ParseUnit(u.Name); ok && unit.Role == role && unit.Instance > 0 {
			all = append(all, Instance{u, unit.Instance})
		}
	}
	slices.SortFunc(all, func(a, b Instance) int { return cmp.Compare(a.Number, b.Number) })
	return all, nil
}
