// Package live changes running apps: it carries out a plan on a machine with systemd, starts,
// scales, stops and removes apps, and says why an app did not start. It sends all requests to PID
// 1, and none to the balancers.
//
// Operations report their steps as Events through a function of the caller, in the order of the
// steps and from the goroutine that called the operation. They print nothing.
package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/unitgen/unitgen/internal/account"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Options are the caller's settings for a Manager. All functions except Ask must be set.
type Options struct {
	Site     plan.Site
	EUID     int
	UserName string
	Getenv   func(string) string
	Now      func() time.Time
	Tell     func(Event)

	// Ask asks the balancer of a running app; nil if the caller may not.
	Ask func(ctx context.Context, name app.Name) (control.Status, error)
}

// RuntimeDir is where the manager's units have their sockets (%t of systemd.unit(5)).
func (o Options) RuntimeDir() string {
	if o.Site.UserUnits {
		return o.Getenv("XDG_RUNTIME_DIR")
	}
	return "/run"
}

// Lingers reports whether the user's manager outlives the user's sessions (loginctl enable-linger).
func (o Options) Lingers() bool {
	_, err := os.Lstat(o.Site.Root + "/var/lib/systemd/linger/" + o.UserName)
	return err == nil
}

// UserOption is the option of systemctl and journalctl for the manager, with a blank at the end;
// empty for the system's.
func (o Options) UserOption() string {
	if o.Site.UserUnits {
		return "--user "
	}
	return ""
}

// systemctl is how commands for the manager begin, with a blank at the end.
func (o Options) systemctl() string { return "systemctl " + o.UserOption() }

// Manager is the service manager that a site's units are for. The caller closes it.
type Manager struct {
	Conn     *systemd.Conn
	Endpoint systemd.Endpoint // of Conn, for connections of their own
	Version  int

	Options
}

// Dial connects to the manager, and refuses one that is too old.
func Dial(ctx context.Context, o Options) (*Manager, error) {
	endpoint, hint := systemd.SystemEndpoint(o.EUID, o.Getenv("DBUS_SYSTEM_BUS_ADDRESS")), "systemctl status dbus"
	if o.Site.UserUnits {
		dir := o.RuntimeDir()
		hint = "loginctl enable-linger " + o.UserName
		if dir == "" {
			return nil, fault.With(errors.New("XDG_RUNTIME_DIR is not set, so your user manager cannot be found"), hint)
		}
		endpoint = systemd.UserEndpoint(dir, o.Getenv("DBUS_SESSION_BUS_ADDRESS"))
	}
	conn, err := systemd.DialToStay(ctx, endpoint)
	if err != nil {
		return nil, fault.With(err, hint)
	}
	v, err := conn.Version(ctx)
	if err == nil && v < app.MinSystemdVersion {
		err = fault.With(fmt.Errorf("systemd %d is too old, unitgen needs %d or later", v, app.MinSystemdVersion), "")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Manager{Conn: conn, Endpoint: endpoint, Version: v, Options: o}, nil
}

// Close closes the connection. A nil Manager may be closed.
func (m *Manager) Close() {
	if m != nil {
		m.Conn.Close()
	}
}

// State is what an app does.
type State struct {
	Serving bool // the shim runs, or is being started
	Open    bool // the port is open; alone, the app is idle and the next connection starts it
}

// Keep keeps the units of an app loaded until release is called (see systemd.Conn.Keep), so that they
// can be asked about one by one. Of a user who would have to be authorized for it, polkit is not asked.
func (m *Manager) Keep(ctx context.Context, name app.Name) (release func()) {
	if m.EUID != 0 && !m.Site.UserUnits {
		return func() {}
	}
	return m.Conn.Keep(ctx, name.Service())
}

// State reads whether the app runs.
func (m *Manager) State(ctx context.Context, name app.Name) (State, error) {
	defer m.Keep(ctx, name)()
	shim, err := m.Conn.Unit(ctx, name.Service())
	if err != nil {
		return State{}, err
	}
	socket, err := m.Conn.Unit(ctx, name.Socket())
	if err != nil {
		return State{}, err
	}
	s := State{Serving: shim.Up() || shim.ActiveState == "activating"}
	s.Open = s.Serving || shim.Leaving() || socket.ActiveState == "active"
	return s, nil
}

// shimUser is the user of the system's shims (User= in app.service).
const shimUser = "lbshim"

// CheckUser makes sure that the shim's user exists where it must. The units ask for a dynamic one
// (DynamicUser=), and dbus-broker takes that; the reference dbus-daemon closes its connections, see
// systemd.SystemEndpoint.
func (m *Manager) CheckUser(ctx context.Context) error {
	if m.Site.UserUnits {
		return nil
	}
	if found, _ := (account.Book{Root: m.Site.Root}).Find(ctx, "passwd", shimUser); len(found) > 0 {
		return nil
	}
	broker, err := m.Conn.Unit(ctx, "dbus-broker.service")
	if err != nil || broker.ActiveState == "active" {
		return err
	}
	hint := "useradd --system " + shimUser
	const file = "/usr/lib/sysusers.d/unitgen.conf"
	if _, err := os.Stat(m.Site.Root + file); err == nil {
		hint = "systemd-sysusers " + file
	}
	return fault.With(fmt.Errorf("find user %s: there is none, and this machine's D-Bus daemon does not accept dynamic users", shimUser), hint)
}

// Question is what package explain is asked about an app.
func (m *Manager) Question(name app.Name) explain.Question {
	return explain.Question{Conn: m.Conn, App: name, UserUnits: m.Site.UserUnits, RuntimeDir: m.appDir(name)}
}

// controlPath is the app's control socket, as this process finds it.
func (m *Manager) controlPath(name app.Name) string {
	return m.Site.Root + name.ControlPath(m.RuntimeDir())
}

// appDir is the directory of the app's control socket.
func (m *Manager) appDir(name app.Name) string { return filepath.Dir(m.controlPath(name)) }

// reasons says why instances are not up. A reason that is not found is no additional error: the
// start has failed already.
func (m *Manager) reasons(ctx context.Context, name app.Name, since time.Time) []error {
	q := m.Question(name)
	q.Since = since
	all, _ := q.Instances(ctx, m.Site.Instances(name))
	var why []error
	for _, f := range all {
		why = append(why, fault.With(errors.New(f.String()), f.Hint))
	}
	return why
}

// explain adds to a failed job why it failed.
func (m *Manager) explain(ctx context.Context, name app.Name, err error) error {
	var job *systemd.JobError
	if ctx.Err() != nil || !errors.As(err, &job) {
		return err
	}
	if r, e := m.Question(name).Socket(ctx); e == nil && r.What != "" {
		return fault.With(fmt.Errorf("%s did not get ready: %s", name, r), r.Hint)
	}
	if why := m.reasons(ctx, name, time.Time{}); len(why) > 0 {
		return errors.Join(why...)
	}
	if state, e := m.Conn.Unit(ctx, job.Job.Unit); e == nil {
		if state.Result != "" && state.Result != "success" {
			err = fmt.Errorf("%w; result of %s: %s", err, job.Job.Unit, state.Result)
		}
		if state.StatusText != "" {
			err = fmt.Errorf("%w, %q", err, state.StatusText)
		}
	}
	return fault.With(err, fmt.Sprintf("journalctl %s-u %s -u '%s@*' -e", m.UserOption(), name, name))
}
