package systemd

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// Wants lists the units that a unit wants (Wants=, and the links in its .wants directories).
func (c *Conn) Wants(ctx context.Context, unit string) ([]string, error) {
	v, err := c.property(ctx, UnitPath(unit), unitIf, "Wants")
	if err != nil {
		return nil, fmt.Errorf("read what %s wants: %w", unit, err)
	}
	wants, _ := v.Value().([]string)
	return wants, nil
}

// Properties reads properties of a unit by name, of the interface Unit or of the unit's type.
// Values have godbus's types: a string, bool, integer or slice. Names that this manager does not
// know are left out.
func (c *Conn) Properties(ctx context.Context, unit string, names ...string) (map[string]any, error) {
	found := make(map[string]any)
	for _, iface := range []string{unitIf, typeInterface(unit)} {
		if iface == "" {
			continue
		}
		var all map[string]dbus.Variant
		err := c.use(ctx, func(l *link) error {
			return l.bus.Object(busName, UnitPath(unit)).CallWithContext(ctx, propertyIf+".GetAll", dbus.FlagNoAutoStart, iface).Store(&all)
		})
		if err != nil {
			return nil, fmt.Errorf("read properties of %s: %w", unit, err)
		}
		for _, name := range names {
			if v, ok := all[name]; ok {
				found[name] = v.Value()
			}
		}
	}
	return found, nil
}
