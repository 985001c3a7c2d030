package systemd

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// Question asks for one property of one unit.
type Question struct {
	Unit, Property string
	OfType         bool // of the interface of the unit's type, such as Service; else of interface Unit
}

// sweepWindow is how many questions wait for their answers at a time. dbus-daemon allows 128 on the
// system's bus (max_replies_per_connection in dbus-daemon(1)).
const sweepWindow = 64

// Sweep reads one property of each of many units. It sends all questions before it waits for an
// answer. Answers are in the order of the questions, with godbus's types; nil for a property that
// its unit does not have.
func (c *Conn) Sweep(ctx context.Context, questions []Question) (answers []any, err error) {
	err = c.use(ctx, func(l *link) error {
		answers, err = l.sweep(ctx, questions)
		return err
	})
	return answers, err
}

func (l *link) sweep(ctx context.Context, questions []Question) ([]any, error) {
	answers := make([]any, len(questions))
	calls := make([]*dbus.Call, len(questions))
	for i := range len(questions) + sweepWindow {
		if done := i - sweepWindow; done >= 0 {
			call := calls[done]
			<-call.Done
			var v dbus.Variant
			err := call.Store(&v)
			if err != nil && !isDBusError(err, "org.freedesktop.DBus.Error.UnknownProperty") {
				return nil, fmt.Errorf("read %s of %s: %w", questions[done].Property, questions[done].Unit, err)
			}
			answers[done] = v.Value()
			calls[done] = nil
		}
		if i < len(questions) {
			q := questions[i]
			iface := unitIf
			if q.OfType {
				iface = typeInterface(q.Unit)
			}
			calls[i] = l.bus.Object(busName, UnitPath(q.Unit)).GoWithContext(ctx, propertyIf+".Get", dbus.FlagNoAutoStart,
				make(chan *dbus.Call, 1), iface, q.Property)
		}
	}
	return answers, nil
}
