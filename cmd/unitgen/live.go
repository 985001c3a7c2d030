package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/systemd"
)

// live is the running side of an app: the manager, and what the app was doing when it was looked at.
type live struct {
	conn     *systemd.Conn
	endpoint systemd.Endpoint // of conn, for connections of their own
	version  int
	serving  bool // the shim runs, or is being started
	open     bool // the port is open; alone, the app is idle and the next connection starts it
}

// dial connects to the manager that the site's units are for, and refuses one that is too old.
func (c *command) dial(ctx context.Context) (*live, error) {
	endpoint, hint := systemd.SystemEndpoint(c.env.euid, c.env.getenv("DBUS_SYSTEM_BUS_ADDRESS")), "systemctl status dbus"
	if c.site.UserUnits {
		dir := c.env.getenv("XDG_RUNTIME_DIR")
		hint = "loginctl enable-linger " + c.env.userName
		if dir == "" {
			return nil, fault.With(errors.New("XDG_RUNTIME_DIR is not set, so there is no manager of your own to talk to"), hint)
		}
		endpoint = systemd.UserEndpoint(dir, c.env.getenv("DBUS_SESSION_BUS_ADDRESS"))
	}
	conn, err := systemd.Dial(ctx, endpoint)
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
	return &live{conn: conn, endpoint: endpoint, version: v}, nil
}

// look reads whether the app runs.
func (l *live) look(ctx context.Context, name app.Name) error {
	shim, err := l.conn.Unit(ctx, name.Service())
	if err != nil {
		return err
	}
	socket, err := l.conn.Unit(ctx, name.Socket())
	if err != nil {
		return err
	}
	l.serving = shim.Up() || shim.ActiveState == "activating"
	l.open = l.serving || shim.Leaving() || socket.ActiveState == "active"
	return nil
}

// checkPorts finds ports that another program listens on. The app's own are not asked for.
func checkPorts(p *plan.Plan) error {
	var found []error
	for _, l := range p.NewListeners() {
		err := checkPort(l)
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			found = append(found, inputf(fmt.Sprintf("ss -ltnp 'sport = :%d'", l.Port), "--listen=%s is in use by another program%s", l, holder(l)))
		case err != nil:
			found = append(found, err)
		}
	}
	if agent := p.NewAgent(); agent != (app.Listen{}) {
		if errors.Is(checkPort(agent), unix.EADDRINUSE) {
			found = append(found, inputf(fmt.Sprintf("ss -ltnp 'sport = :%d'", agent.Port), "--agent=%s is in use by another program%s", agent, holder(agent)))
		}
	}
	return errors.Join(found...)
}

// holder says who listens on a port, if that can be found out.
func holder(l app.Listen) string {
	if h, ok := explain.FindHolder(int(l.Port)); ok && h.PID != 1 {
		return ": " + h.String()
	}
	return ""
}

// checkLbshim makes sure that the program which all units call is there.
func (c *command) checkLbshim() error {
	st, err := os.Stat(c.env.root + c.env.lbshim)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.With(fmt.Errorf("find %s: it is not installed, and no app can run without it", c.env.lbshim), "make install")
	case err != nil:
		return fmt.Errorf("find lbshim: %w", err)
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return fault.With(fmt.Errorf("%s is not an executable file", c.env.lbshim), "make install")
	}
	return nil
}

// shimUser is who the shims of the system run as (User= in app.service).
const shimUser = "lbshim"

// checkUser makes sure that the shim's user exists where it must. The units ask for a dynamic one (DynamicUser=), and
// dbus-broker takes that; the reference dbus-daemon closes its connections, see systemd.SystemEndpoint.
func (c *command) checkUser(ctx context.Context, l *live) error {
	if c.site.UserUnits || hasUser(c.env.root+"/etc/passwd", shimUser) {
		return nil
	}
	broker, err := l.conn.Unit(ctx, "dbus-broker.service")
	if err != nil || broker.ActiveState == "active" {
		return err
	}
	hint := "useradd --system " + shimUser
	const file = "/usr/lib/sysusers.d/unitgen.conf"
	if _, err := os.Stat(c.env.root + file); err == nil {
		hint = "systemd-sysusers " + file
	}
	return fault.With(fmt.Errorf("find user %s: there is none, and this machine's D-Bus daemon takes no dynamic users", shimUser), hint)
}

// hasUser looks for name in a file as passwd(5) describes it.
func hasUser(file, name string) bool {
	text, err := os.ReadFile(file)
	return err == nil && strings.Contains("\n"+string(text), "\n"+name+":")
}

// jobs is one job of verb for each unit.
func jobs(verb systemd.Verb, units []string) []systemd.Job {
	list := make([]systemd.Job, len(units))
	for i, unit := range units {
		list[i] = systemd.Job{Verb: verb, Unit: unit}
	}
	return list
}

// stopTries is how often a stop is asked for that somebody else cancels: a connection that comes at the moment has PID 1 start
// the app in place of its stop.
const stopTries = 3

// stopUnits stops units, and does not mind those that do not exist.
func (l *live) stopUnits(ctx context.Context, units []string) (err error) {
	for range stopTries {
		var failed []error
		canceled := false
		for _, part := range app.Parts(l.conn.Run(ctx, jobs(systemd.Stop, units)...)) {
			if systemd.IsNoSuchUnit(part) {
				continue
			}
			var job *systemd.JobError
			canceled = canceled || errors.As(part, &job) && job.Result == "canceled"
			failed = append(failed, part)
		}
		if err = errors.Join(failed...); !canceled {
			break
		}
	}
	return err
}

// stopApp stops an app with all its sockets: the shim first, which drains and closes what it knows of, then what is
// left, such as the sockets of an app that was idle.
func (l *live) stopApp(ctx context.Context, name app.Name) error {
	// With the sockets told to stop too, what waits there cannot start the shim again in place of its stop. PID 1 ends them
	// after it.
	if err := l.stopUnits(ctx, []string{name.Socket(), name.ControlSocket(), name.Service()}); err != nil {
		return err
	}
	// The units of joins end with their sockets (BindsTo=), and are not stopped by anybody (RefuseManualStop=).
	loaded, err := l.conn.ListUnits(ctx, string(name)+"@*.service", string(name)+"@*.socket")
	if err != nil {
		return err
	}
	var services, sockets []string
	services = append(services, name.Triggers()...)
	for _, unit := range name.Units() {
		if strings.HasSuffix(unit, ".socket") && !strings.Contains(unit, "@") {
			sockets = append(sockets, unit)
		}
	}
	for _, unit := range loaded {
		switch {
		case unit.ActiveState == "inactive":
		case strings.HasSuffix(unit.Name, ".socket"):
			sockets = append(sockets, unit.Name)
		default:
			services = append(services, unit.Name)
		}
	}
	// Services first: a socket whose service runs would be triggered by what is still in its queue.
	return errors.Join(l.stopUnits(ctx, services), l.stopUnits(ctx, sockets))
}

// apply carries out a plan on a machine that runs systemd. A failed start leaves the units as they are written: they are
// what the user asked for, and what the journal speaks of.
func (c *command) apply(ctx context.Context, l *live, p *plan.Plan) error {
	name := p.App.Name
	if err := l.look(ctx, name); err != nil {
		return err
	}
	moved := p.ListenChanges() && l.open
	if unit := c.wasStopped(name); unit != "" && l.serving {
		os.Remove(c.stoppedNote(name)) // somebody has started it meanwhile
	} else if unit != "" {
		l.serving, l.open, moved = unit == name.Service(), true, true
	}
	if moved {
		if err := plan.Try(p.Changes); err != nil {
			return err
		}
		c.say("Stopping %s, as its listeners change.", name)
		if err := c.noteStopped(l, name); err != nil {
			return err
		}
		defer func() {
			if ctx.Err() == nil {
				os.Remove(c.stoppedNote(name))
			}
		}()
		if err := l.stopApp(ctx, name); err != nil {
			return c.explain(ctx, l, name, err)
		}
	}
	// Before their files go: a timer fails when PID 1 finds that what it starts is gone.
	if err := l.stopUnits(ctx, p.Disarm); err != nil {
		return c.explain(ctx, l, name, err)
	}
	if err := c.write(p); err != nil {
		if l.serving {
			err = errors.Join(err, l.conn.Run(ctx, jobs(systemd.Start, p.Disarm)...))
		}
		if moved {
			err = errors.Join(err, l.conn.Run(ctx, systemd.Job{Verb: systemd.Start, Unit: l.toStart(name)}))
		}
		return err
	}
	enabled := false
	if c.options.now {
		var err error
		if enabled, err = l.conn.EnableUnitFiles(ctx, name.Service()); err != nil {
			return err
		}
	}
	if len(p.Changes) > 0 || enabled {
		if err := c.reload(ctx, l); err != nil {
			return err
		}
	}
	if moved {
		if err := c.startAgain(ctx, l, p.App); err != nil {
			return err
		}
	} else if err := c.scale(ctx, l, p); err != nil {
		return c.explain(ctx, l, name, err)
	}
	if err := c.armTriggers(ctx, l, p); err != nil {
		return c.explain(ctx, l, name, err)
	}
	return c.finish(ctx, l, p, moved)
}

func (c *command) reload(ctx context.Context, l *live) error {
	begin := c.env.now()
	if err := l.conn.Reload(ctx); err != nil {
		return err
	}
	c.say("Reloaded systemd in %s.", c.env.now().Sub(begin).Round(time.Millisecond))
	return nil
}

// startAgain starts what stopApp stopped; an app that was idle gets its port back and no more.
func (c *command) startAgain(ctx context.Context, l *live, a app.App) error {
	c.say("Starting %s.", a.Name)
	if l.serving {
		return c.start(ctx, l, a)
	}
	if err := l.conn.Run(ctx, systemd.Job{Verb: systemd.Start, Unit: a.Name.Socket()}); err != nil {
		return c.explain(ctx, l, a.Name, err)
	}
	return nil
}

// toStart is the unit that brings an app back to what it was doing.
func (l *live) toStart(name app.Name) string {
	if l.serving {
		return name.Service()
	}
	return name.Socket()
}

// stoppedNote is a file that is there while unitgen has an app stopped. If it is killed then, the next run finds the note, and
// starts again what the other one stopped.
func (c *command) stoppedNote(name app.Name) string {
	return c.env.root + filepath.Join(c.runtimeDir(), "unitgen-stopped-"+string(name))
}

func (c *command) noteStopped(l *live, name app.Name) error {
	err := os.WriteFile(c.stoppedNote(name), []byte(l.toStart(name)), 0o600)
	if err != nil {
		return fmt.Errorf("note that %s is stopped: %w", name, err)
	}
	return nil
}

// wasStopped is the unit that a run which was killed had yet to start; empty for none.
func (c *command) wasStopped(name app.Name) string {
	unit, _ := os.ReadFile(c.stoppedNote(name))
	return string(unit)
}

// scale starts the instances that were added to a running app and stops those that were dropped, and touches no other
// unit. A dropped instance's socket goes after it: its queue is moved to the others before.
func (c *command) scale(ctx context.Context, l *live, p *plan.Plan) error {
	name := p.App.Name
	if len(p.Add) > 0 && l.serving {
		if err := l.conn.Run(ctx, jobs(systemd.Start, unitNames(p.Add, name.Instance))...); err != nil {
			return err
		}
		c.say("Started %s.", instanceNames(name, p.Add))
	}
	if len(p.Drop) > 0 && l.open {
		if err := l.stopUnits(ctx, unitNames(p.Drop, name.Instance)); err != nil {
			return err
		}
		if err := l.stopUnits(ctx, unitNames(p.Drop, name.InstanceSocket)); err != nil {
			return err
		}
		c.say("Stopped %s.", instanceNames(name, p.Drop))
	}
	return nil
}

// armTriggers starts the timers and watches of a running app that are new or changed. That touches nothing of what they
// trigger.
func (c *command) armTriggers(ctx context.Context, l *live, p *plan.Plan) error {
	if !l.serving {
		return nil
	}
	var list []systemd.Job
	for _, unit := range p.App.Triggers() {
		if slices.Contains(p.Arm, unit) || slices.ContainsFunc(p.Changes, func(ch plan.Change) bool { return filepath.Base(ch.Path) == unit }) {
			list = append(list, systemd.Job{Verb: systemd.Restart, Unit: unit})
		}
	}
	return l.conn.Run(ctx, list...)
}

// finish does --now, or says what is left to do.
func (c *command) finish(ctx context.Context, l *live, p *plan.Plan, moved bool) error {
	name := p.App.Name
	systemctl := "systemctl "
	if c.site.UserUnits {
		systemctl += "--user "
	}
	switch {
	case c.options.now && !(moved && l.serving):
		c.release() // a slow start must not keep other apps waiting
		if err := c.start(ctx, l, p.App); err != nil {
			return err
		}
	case p.Was == nil:
		c.say("It is not started yet: %senable --now %s", systemctl, name)
	}
	if e := p.Effect(); e != plan.EffectNone && l.serving && !moved {
		c.say("What runs has the old settings until: %s", e.Command(systemctl, name))
	}
	if c.site.UserUnits && !c.lingers() {
		c.say("Your units end when you log out, until: loginctl enable-linger %s", c.env.userName)
	}
	return nil
}

// lingers reports whether the user's manager outlives the user's sessions (loginctl enable-linger).
func (c *command) lingers() bool {
	_, err := os.Lstat(c.env.root + "/var/lib/systemd/linger/" + c.env.userName)
	return err == nil
}

func unitNames(instances []int, unit func(int) string) []string {
	units := make([]string, len(instances))
	for i, n := range instances {
		units[i] = unit(n)
	}
	return units
}

// instanceNames lists instances for the user: app@2, app@3.
func instanceNames(name app.Name, instances []int) string {
	names := unitNames(instances, name.Instance)
	slices.Sort(names)
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], ".service")
	}
	return strings.Join(names, ", ")
}
