package rig

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// rereadEvery bounds how late WaitFor sees a property that changes without a PropertiesChanged signal (NAccepted,
// NFileDescriptorStore, MemoryCurrent).
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

// Properties returns all properties of unit.
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

// WaitFor returns when ok says yes to the properties of unit, and returns these. It looks at them at each of systemd's
// PropertiesChanged signals for the unit. When ctx ends, the error has the properties last seen. States that come and
// go within some 20 ms, the time of one systemctl, can be missed: wait for what stays.
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
		p, err := c.Properties(ctx, unit)
		if err != nil {
			return last, fmt.Errorf("wait for unit %q, last seen %s: %w", unit, last, err)
		}
		if last = p; ok(p) {
			return p, nil
		}
		select {
		case <-changes.signals:
			changes.drain()
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

// unitWatch is a connection to the container's system bus on which systemd announces changes of one unit.
type unitWatch struct {
	conn    *dbus.Conn
	signals chan *dbus.Signal
}

// drain forgets signals that have arrived together: one look at the properties serves them all.
func (w *unitWatch) drain() {
	for {
		select {
		case <-w.signals:
		default:
			return
		}
	}
}

func (w *unitWatch) close() { w.conn.Close() }

func (c *Container) watch(ctx context.Context, unit string) (*unitWatch, error) {
	b, err := c.current()
	if err != nil {
		return nil, err
	}
	// A socket with a path is reached through the file system, in whichever network namespace it was made.
	path := fmt.Sprintf("/proc/%d/root/run/dbus/system_bus_socket", b.leader)
	conn, err := dbus.Dial("unix:path="+path, dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("connect to bus: %w", err)
	}
	w := &unitWatch{conn: conn, signals: make(chan *dbus.Signal, 64)}
	if err := w.subscribe(ctx, unit); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *unitWatch) subscribe(ctx context.Context, unit string) error {
	if err := w.conn.Auth([]dbus.Auth{dbus.AuthExternal(fmt.Sprint(os.Getuid()))}); err != nil {
		return fmt.Errorf("authenticate at bus: %w", err)
	}
	if err := w.conn.Hello(); err != nil {
		return fmt.Errorf("say hello to bus: %w", err)
	}
	w.conn.Signal(w.signals)
	if err := w.conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface("org.freedesktop.DBus.Properties"),
		dbus.WithMatchObjectPath(unitPath(unit))); err != nil {
		return fmt.Errorf("match signals of unit: %w", err)
	}
	// systemd sends its signals only while somebody has subscribed; the subscription ends with the connection.
	manager := w.conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	if err := manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.Subscribe", 0).Err; err != nil {
		return fmt.Errorf("subscribe to systemd: %w", err)
	}
	return nil
}

// unitPath returns the D-Bus object of unit: its name with all but letters and digits, and a digit at the start,
// written as _ and two hexadecimal digits (sd_bus_path_encode(3)).
func unitPath(unit string) dbus.ObjectPath {
	var b strings.Builder
	b.WriteString("/org/freedesktop/systemd1/unit/")
	for i := range len(unit) {
		ch := unit[i]
		letter := ch >= 'a' && ch <= 'z' || ch >= 'A' && ch <= 'Z'
		if letter || i > 0 && ch >= '0' && ch <= '9' {
			b.WriteByte(ch)
		} else {
			fmt.Fprintf(&b, "_%02x", ch)
		}
	}
	return dbus.ObjectPath(b.String())
}
