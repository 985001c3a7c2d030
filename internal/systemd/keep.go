package systemd

import (
	"context"
	"time"

	"github.com/godbus/dbus/v5"
)

// unkeepTimeout limits the wait for the end of a Keep. The manager also ends it with the connection.
const unkeepTimeout = 5 * time.Second

// Keep has the manager keep a unit loaded, and all that the unit wants, until release is called or
// the connection ends.
//
// The manager unloads a unit that is inactive and that no other unit refers to, and loads it for each
// question about it, with all that the unit refers to. An instance refers to its app, and that to all
// instances: of an app that is neither started nor enabled, one question took 28 ms with 16 instances,
// 50 with 32 and 108 with 64, where it takes a third of one (seen on 257).
//
// There is no error, as everything works without it: the manager's own socket has no such references,
// and a caller who may not manage the unit is refused.
func (c *Conn) Keep(ctx context.Context, unit string) (release func()) {
	if c.unitMethod(ctx, unit, "Ref") != nil {
		return func() {}
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unkeepTimeout)
		defer cancel()
		_ = c.unitMethod(ctx, unit, "Unref") // fails if the connection of then has ended, and the reference with it
	}
}

// unitMethod calls a method without arguments of a unit, which is loaded for it.
func (c *Conn) unitMethod(ctx context.Context, unit, method string) error {
	return c.use(ctx, func(l *link) error {
		return l.bus.Object(busName, UnitPath(unit)).CallWithContext(ctx, unitIf+"."+method, dbus.FlagNoAutoStart).Err
	})
}
