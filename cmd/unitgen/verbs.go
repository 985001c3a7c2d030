package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/doctor"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/systemd"
)

// command is one run of unitgen.
type command struct {
	env      *env
	options  *options
	root     *cobra.Command // what the command line can be
	site     plan.Site
	booted   bool          // systemd runs here
	file     *settingsFile // of --file=; nil for none
	guessed  bool          // the app's address stands in for one that is to be learned
	progress progress      // of operations on instances
	release  func()        // lets other runs into the site's directory; may be called more than once
}

// run is unitgen; it returns the exit status.
func run(ctx context.Context, e *env) int {
	c := &command{env: e}
	c.progress = progress{w: e.stderr, live: e.talkTerminal && e.getenv("TERM") != "dumb", steps: make(map[int]live.Event), size: e.screen,
		colour: choose(e.getenv("NO_COLOR") == "")}
	status, err := c.execute(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted; systemd finishes the jobs that it has")
	}
	if err != nil {
		return report(e.stderr, err)
	}
	return status
}

// run does what the verb says.
func (c *command) run(ctx context.Context) (status int, err error) {
	switch c.options.verb {
	case "check":
		return exitSuccess, c.checkFiles(ctx)
	case "completion":
		return exitSuccess, c.completion()
	case "import":
		return c.importApps(ctx)
	}
	if c.options.file != "" {
		if err := c.readFile(); err != nil {
			return 0, err
		}
	}
	c.booted = systemd.Booted(c.env.root)
	if c.site, err = c.findSite(); err != nil {
		return 0, err
	}
	switch c.options.verb {
	case "list":
		return exitSuccess, c.list(ctx)
	case "status":
		return exitSuccess, c.status(ctx)
	case "remove":
		return exitSuccess, c.remove(ctx)
	case "diff":
		return exitSuccess, c.diff(ctx)
	case "send":
		return exitSuccess, c.send(ctx)
	case "drain":
		return exitSuccess, c.drain(ctx)
	case "undrain":
		return exitSuccess, c.undrain(ctx)
	case "export":
		return exitSuccess, c.export()
	case "logs":
		return exitSuccess, c.logs(ctx)
	case "doctor":
		return c.doctor(ctx)
	case "start", "stop", "restart", "reload":
		return exitSuccess, c.act(ctx)
	}
	return c.generate(ctx)
}

// findSite says where units go.
func (c *command) findSite() (plan.Site, error) {
	s := plan.Site{Root: c.env.root, UserUnits: c.options.userUnits, Lbshim: c.env.lbshim, CPUs: c.env.cpuNumbers}
	switch {
	case c.options.output != "":
		s.Dir, s.Packaging = c.absolute(c.options.output), true
	case s.UserUnits:
		config := c.env.getenv("XDG_CONFIG_HOME")
		if config == "" {
			home := c.env.getenv("HOME")
			if home == "" {
				return s, inputf("", "--user-units needs $HOME, which is not set")
			}
			config = home + "/.config"
		}
		s.Dir = filepath.Join(config, "systemd/user")
	default:
		s.Dir = c.env.root + "/etc/systemd/system"
	}
	return s, nil
}

// generate writes or changes the units of an app: the verbs "" and scale.
func (c *command) generate(ctx context.Context) (status int, err error) {
	if _, err := c.appName(); err != nil {
		return 0, err
	}
	reads := c.options.dryRun || c.options.check
	if !reads && !c.site.Packaging {
		if !c.booted {
			return 0, fault.With(errors.New("systemd does not run here, so it cannot load units"), "--output=DIR writes the units into a directory, --dry-run prints them")
		}
		if err := doctor.CheckLbshim(c.env.root, c.env.lbshim); err != nil {
			return 0, err
		}
	}
	if !reads {
		release, err := c.site.Lock(ctx, c.waiting)
		if err != nil {
			return 0, err
		}
		c.release = release
		defer release()
	}
	p, m, err := c.prepareLearned(ctx)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	for _, warning := range p.App.Warnings() {
		c.say("Note: %s.", warning)
	}
	switch {
	case c.options.check:
		return c.checkPlan(p), nil
	case c.options.dryRun:
		return exitSuccess, c.printPlan(p)
	case m == nil:
		return exitSuccess, c.write(p)
	}
	if err := m.CheckUser(ctx); err != nil {
		return 0, err
	}
	return exitSuccess, m.Apply(ctx, p, live.Applying{Now: c.options.now, Release: c.release})
}

// prepare finds out what is to change. It changes nothing. The manager is nil if there is none to talk to, or no need.
func (c *command) prepare(ctx context.Context) (*plan.Plan, *live.Manager, error) {
	name, err := c.appName()
	if err != nil {
		return nil, nil, err
	}
	d, err := c.site.Read(name)
	if err != nil {
		return nil, nil, err
	}
	if c.options.verb == "scale" && d.App == nil {
		return nil, nil, c.noApp(name)
	}
	a, err := c.wanted(ctx, name, c.before(d))
	n, countErr := c.count(len(d.Instances), d.App == nil)
	if err := errors.Join(countErr, err); err != nil {
		return nil, nil, err
	}
	if err := c.checkAccounts(ctx, a, d.After(n)); err != nil {
		return nil, nil, err
	}
	if c.placeChanges(a, d) {
		if err := c.checkPlace(ctx, a); err != nil {
			return nil, nil, err
		}
	}
	if d.App != nil && a.UserUnits != d.App.UserUnits {
		return nil, nil, inputf("", "%s exists already, and --user-units cannot be changed", name)
	}
	var m *live.Manager
	if c.booted && !c.site.Packaging {
		m, err = live.Dial(ctx, c.live())
		if err != nil && !c.options.dryRun && !c.options.check && c.options.verb != "diff" {
			return nil, nil, err
		}
	}
	if m != nil && d.App == nil && a.SystemdVersion == 0 {
		a.SystemdVersion = m.Version
	}
	p, err := d.For(a, n)
	if err == nil && !c.site.Packaging {
		err = errors.Join(doctor.CheckSocketPaths(c.env.root, p), c.checkProperties(ctx, p))
	}
	if err == nil && m != nil && c.options.verb != "diff" && !c.guessed {
		err = doctor.CheckPorts(p)
	}
	if err != nil {
		m.Close()
		return nil, nil, err
	}
	return p, m, nil
}

func (c *command) noApp(name app.Name) error {
	list := "unitgen list"
	if c.site.UserUnits {
		list += " --user-units"
	}
	return inputf(list, "there is no app %q in %s", name, c.site.Dir)
}

// write makes the plan's changes to the disk and says which.
func (c *command) write(p *plan.Plan) error {
	if err := p.Write(); err != nil {
		return err
	}
	for _, e := range live.Written(p) {
		c.tell(e)
	}
	return nil
}

// checkPlan is --check: it says what differs, and so does the exit status.
func (c *command) checkPlan(p *plan.Plan) int {
	for _, ch := range p.Changes {
		c.say("Would %s %s.", ch.Verb(), ch.Path)
	}
	if len(p.Changes) > 0 {
		return exitFailure
	}
	return exitSuccess
}

// printPlan is --dry-run: what would be done, then every file under its path.
func (c *command) printPlan(p *plan.Plan) error {
	var b strings.Builder
	for _, ch := range p.Changes {
		verb := ch.Verb()
		if ch.Target != "" {
			fmt.Fprintf(&b, "# %s %s -> %s\n", verb, ch.Path, ch.Target)
			continue
		}
		fmt.Fprintf(&b, "# %s %s\n", verb, ch.Path)
	}
	if p.ListenChanges() {
		fmt.Fprintf(&b, "# the listeners change: if %s runs, it is stopped first and then started again\n", p.App.Name)
	}
	if len(p.Changes) == 0 {
		fmt.Fprintf(&b, "# nothing to do\n")
	}
	for _, f := range p.Files {
		fmt.Fprintf(&b, "\n# %s\n%s", filepath.Join(c.site.Dir, f.Name), f.Text)
	}
	_, err := fmt.Fprint(c.env.stdout, b.String())
	return err
}

// live is what operations on running apps need to know.
func (c *command) live() live.Options {
	return live.Options{Site: c.site, EUID: c.env.euid, UserName: c.env.userName, Getenv: c.env.getenv, Now: c.env.now, Tell: c.tell, Ask: c.ask()}
}

// tell says a step of an operation.
func (c *command) tell(e live.Event) {
	if e.Step == live.Instance {
		c.progress.tell(e)
		return
	}
	c.progress.end()
	c.say("%s", e)
}

// diff prints how the disk differs from what the same command line without "diff" would write.
func (c *command) diff(ctx context.Context) error {
	p, m, err := c.prepare(ctx)
	if err != nil {
		return err
	}
	m.Close()
	_, err = fmt.Fprint(c.env.stdout, p.Diff())
	return err
}

// waiting is said when another run works on the same units.
func (c *command) waiting() { c.say("Waiting for another unitgen that works in %s.", c.site.Dir) }

// say tells the user what happens: talk, so it goes to stderr.
func (c *command) say(format string, args ...any) { c.progress.say(fmt.Sprintf(format, args...)) }
