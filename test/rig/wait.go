package rig

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// rereadEvery bounds how late WaitFor sees a property that changes without a PropertiesChanged
// signal (NAccepted, NFileDescriptorStore, MemoryCurrent).
const rereadEvery = 250 * time.Millisecond

// Properties are those of one unit, as "systemctl show" prints them.
type Properties map[string]string

// String returns the few that tell what a unit is doing.
func (p Properties) String() string {
	var b strings.Builder
	for _, name := range []string{"LoadState", "ActiveState", "SubState", "Result", "MainPID", "NRestarts", "ExecMainStatus", "StatusText"} {
		if p[name] != "" {
			fmt.Fprintf(&b, "%s=%s ", name, p[name])
		}
	}
	return strings.TrimSpace(b.String())
}

// Properties returns all properties of unit, by systemctl.
func (c *Container) Properties(ctx context.Context, unit string) (Properties, error) {
	out, err := c.output(ctx, "systemctl", "show", "--", unit)
	if err != nil {
		return nil, err
	}
	p := make(Properties)
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			p[name] = value
		}
	}
	return p, nil
}

// WaitFor returns when ok says yes to the properties of unit, and returns these: those that are one
// string or number. It looks at them at each of systemd's PropertiesChanged signals for the unit,
// and at what each of these says. When ctx ends, the error has the properties last seen. PID 1 may
// leave out states that come and go within some milliseconds: wait for what stays.
func (c *Container) WaitFor(ctx context.Context, unit string, ok func(Properties) bool) (Properties, error) {
	changes, err := c.watch(ctx, unit)
	if err != nil {
		return nil, fmt.Errorf("wait for unit %q: %w", unit, err)
	}
	defer changes.close()
	tick := time.NewTicker(rereadEvery)
	defer tick.Stop()
	var last Properties
	for {
		p, err := c.properties(ctx, unit)
		if err != nil { // PID 1 leaves the bus while it executes itself again; systemctl has another way to it
			p, err = c.Properties(ctx, unit)
		}
		if err != nil {
			return last, fmt.Errorf("wait for unit %q, last seen %s: %w", unit, last, err)
		}
		if last = p; ok(p) {
			return p, nil
		}
		select {
		case signal := <-changes.signals:
			if last = changes.announced(last, signal, ok); ok(last) {
				return last, nil
			}
		case <-tick.C:
		case <-ctx.Done():
			return last, fmt.Errorf("wait for unit %q, last seen %s: %w", unit, last, ctx.Err())
		}
	}
}

// WaitActive waits until unit's ActiveState is state ("active", "inactive", "failed", …).
func (c *Container) WaitActive(ctx context.Context, unit, state string) error {
	_, err := c.WaitFor(ctx, unit, func(p Properties) bool { return p["ActiveState"] == state })
	return err
}

// unitWatch is a connection to the container's system bus on which systemd announces changes of one
// unit, and no others: go-systemd can subscribe to those of all units only, which costs the bus and
// this process more than what they wait for.
type unitWatch struct {
	conn    *dbus.Conn
	signals chan *dbus.Signal
}

// announced returns the properties as they are after a signal and those that have arrived since, or
// the first of these states that ok says yes to: one look at the properties would serve them all,
// but miss a state that did not last.
func (w *unitWatch) announced(last Properties, signal *dbus.Signal, ok func(Properties) bool) Properties {
	now := maps.Clone(last)
	for {
		if signal != nil && len(signal.Body) > 1 { // PropertiesChanged: the interface, what has changed, what else has
			changed, _ := signal.Body[1].(map[string]dbus.Variant)
			for name, value := range changed {
				if text, simple := show(name, value); simple {
					now[name] = text
				}
			}
			if ok(now) {
				return now
			}
		}
		select {
		case next, open := <-w.signals:
			if !open {
				return now
			}
			signal = next
		default:
			return now
		}
	}
}

func (w *unitWatch) close() { w.conn.Close() }

// properties asks PID 1 itself. A process that asks, as systemctl, takes ten times as much CPU
// time.
func (c *Container) properties(ctx context.Context, unit string) (Properties, error) {
	conn, err := c.Manager(ctx)
	if err != nil {
		return nil, err
	}
	all, err := conn.GetAllPropertiesContext(ctx, unit)
	if err != nil {
		return nil, err
	}
	p := make(Properties, len(all))
	for name, value := range all {
		if text, simple := show(name, value); simple {
			p[name] = text
		}
	}
	return p, nil
}

// property is Show by the bus, for what is one string or number.
func (c *Container) property(ctx context.Context, unit, name string) (text string, simple bool) {
	conn, err := c.Manager(ctx)
	if err != nil {
		return "", false
	}
	p, err := conn.GetUnitPropertyContext(ctx, unit, name)
	if kind := typeOf(unit); err != nil && kind != "" {
		p, err = conn.GetUnitTypePropertyContext(ctx, unit, kind, name)
	}
	if err != nil {
		return "", false
	}
	return show(name, p.Value.Value())
}

// typeOf is the type of unit as D-Bus interfaces are named, such as Service.
func typeOf(unit string) string {
	return map[string]string{".service": "Service", ".socket": "Socket", ".timer": "Timer"}[path.Ext(unit)]
}

// notPlain matches the names of numbers that systemctl writes as times, masks or words.
var notPlain = regexp.MustCompile(`(USec|USecNext|Timestamp|Mode|UMask|Capabilities|Filter|Policy)$|^CapabilityBoundingSet$`)

// show writes a property as "systemctl show" does, if it is one string or a number that stands for
// itself.
func show(name string, value any) (text string, simple bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case bool:
		if v {
			return "yes", true
		}
		return "no", true
	case int32, int64:
		return fmt.Sprint(v), !notPlain.MatchString(name)
	case uint32: // the highest stands for infinity or for what is not set
		return fmt.Sprint(v), v != math.MaxUint32 && !notPlain.MatchString(name)
	case uint64:
		return fmt.Sprint(v), v != math.MaxUint64 && !notPlain.MatchString(name)
	}
	return "", false
}

func (c *Container) watch(ctx context.Context, unit string) (*unitWatch, error) {
	b, err := c.current()
	if err != nil {
		return nil, err
	}
	conn, err := b.bus(ctx)
	if err != nil {
		return nil, err
	}
	w := &unitWatch{conn: conn, signals: make(chan *dbus.Signal, 64)}
	if err := w.subscribe(ctx, unit); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *unitWatch) subscribe(ctx context.Context, unit string) error {
	w.conn.Signal(w.signals)
	path := dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + systemd.PathBusEscape(unit))
	if err := w.conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface("org.freedesktop.DBus.Properties"), dbus.WithMatchObjectPath(path)); err != nil {
		return fmt.Errorf("match signals of unit: %w", err)
	}
	// systemd sends its signals only while somebody has subscribed; the subscription ends with the
	// connection.
	manager := w.conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	err := manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.Subscribe", 0).Err
	// After a reexec PID 1 keeps the names of its subscribers, and the next bus gives them anew.
	var already dbus.Error
	if err != nil && !(errors.As(err, &already) && already.Name == "org.freedesktop.systemd1.AlreadySubscribed") {
		return fmt.Errorf("subscribe to systemd: %w", err)
	}
	return nil
}
