package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/doctor"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/systemd"
	"github.com/unitgen/unitgen/internal/view"
	"github.com/unitgen/unitgen/internal/wanted"
)

// command is one run of unitgen.
type command struct {
	env      *env
	options  *options
	root     *cobra.Command // what the command line can be
	site     plan.Site
	booted   bool // systemd runs here
	request  *wanted.Request
	guessed  bool           // the app's address stands in for one that is to be learned
	classic  string         // why a new app gets classic BPF; empty if it does not
	progress *view.Progress // of operations on instances
	release  func()         // lets other runs into the site's directory; may be called more than once
}

func newCommand(e *env) *command {
	return &command{env: e, progress: view.NewProgress(view.ProgressOptions{Writer: e.stderr, Size: e.screen,
		Moves: e.talkTerminal && e.getenv("TERM") != "dumb", Colour: e.getenv("NO_COLOR") == ""})}
}

// run is unitgen; it returns the exit status.
func run(ctx context.Context, e *env) int {
	status, err := newCommand(e).execute(ctx)
	if stopped := (*live.Interrupted)(nil); errors.As(err, &stopped) {
		err = fault.With(stopped, stopped.Hint)
	} else if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted; systemd finishes the jobs that it has")
	}
	if err != nil {
		return report(e.stderr, err)
	}
	return status
}

// run carries out the verb.
func (c *command) run(ctx context.Context) (status int, err error) {
	switch c.options.verb {
	case "check":
		return exitSuccess, c.checkFiles(ctx)
	case "completion":
		return exitSuccess, c.completion()
	case "import":
		return c.importApps(ctx)
	}
	c.request = c.newRequest()
	if c.options.file != "" {
		if err := c.request.TakeFile(c.options.file); err != nil {
			return 0, err
		}
		c.options.userUnits = c.request.UserUnits
	}
	c.booted = systemd.Booted(c.env.root)
	if c.site, err = c.findSite(); err != nil {
		return 0, err
	}
	c.request.Site = c.site
	switch c.options.verb {
	case "list":
		return exitSuccess, c.list(ctx)
	case "status":
		return exitSuccess, c.status(ctx)
	case "top":
		return exitSuccess, c.top(ctx)
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

// findSite returns the directory of the units and what belongs to it.
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
	if !c.reads() && (c.booted || c.site.Packaging) {
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
	if m == nil && !c.reads() && !c.site.Packaging {
		return 0, fault.With(errors.New("systemd does not run here, so it cannot load units"), "--output=DIR writes the units into a directory, --dry-run prints them")
	}
	for _, warning := range p.App.Warnings() {
		c.say("Note: %s.", warning)
	}
	if c.classic != "" {
		c.say("Note: connections are spread at random (--classic-bpf): %s.", c.classic)
	}
	switch {
	case c.options.check:
		return c.checkPlan(p), nil
	case c.options.dryRun:
		_, err := fmt.Fprint(c.env.stdout, p.Text())
		return exitSuccess, err
	case m == nil:
		return exitSuccess, c.write(p)
	}
	if err := m.CheckUser(ctx); err != nil {
		return 0, err
	}
	return exitSuccess, m.Apply(ctx, p, live.Applying{Now: c.options.now, Release: c.release})
}

// reads reports whether the command changes nothing.
func (c *command) reads() bool {
	return c.options.dryRun || c.options.check || c.options.verb == "diff"
}

// prepare finds out what is to change, and changes nothing. The manager is nil if none runs here or
// none is needed; the caller closes it.
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
	c.request.Name = name
	a, err := c.request.App(ctx, d.App)
	n, countErr := c.request.Count(len(d.Instances), d.App == nil)
	if err := errors.Join(countErr, err); err != nil {
		return nil, nil, err
	}
	if err := c.request.Suits(ctx, a, d, n); err != nil {
		return nil, nil, err
	}
	if d.App != nil && a.UserUnits != d.App.UserUnits {
		return nil, nil, inputf("", "%s exists already, and --user-units cannot be changed", name)
	}
	var m *live.Manager
	if c.booted && !c.site.Packaging {
		if !c.reads() {
			if err := doctor.CheckLbshim(c.env.root, c.env.lbshim); err != nil {
				return nil, nil, err
			}
		}
		m, err = live.Dial(ctx, c.live())
		if err != nil && !c.reads() {
			return nil, nil, err
		}
	}
	if m != nil && d.App == nil {
		a.SystemdVersion = cmp.Or(a.SystemdVersion, m.Version)
		c.chooseBPF(&a)
	}
	p, err := d.For(a, n)
	if err == nil && !c.site.Packaging {
		err = errors.Join(doctor.CheckSocketPaths(c.env.root, p), c.request.CheckProperties(ctx, p))
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

// chooseBPF gives a new app classic BPF where its balancer could not use eBPF.
func (c *command) chooseBPF(a *app.App) {
	if c.env.steering == nil || c.env.euid != 0 || a.UserUnits || a.ClassicBPF || a.DataPath() != app.PathSteer || c.options.given["classic-bpf"] {
		return
	}
	if can := c.env.steering(); !can.Distribution {
		a.ClassicBPF, c.classic = true, can.Reason
	}
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

// live is what operations on running apps need to know.
func (c *command) live() live.Options {
	return live.Options{Site: c.site, EUID: c.env.euid, UserName: c.env.userName, Getenv: c.env.getenv, Now: c.env.now, Tell: c.tell, Ask: c.ask()}
}

// tell shows a step of an operation.
func (c *command) tell(e live.Event) {
	if e.Step == live.Instance {
		c.progress.Tell(e)
		return
	}
	c.progress.End()
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

// waiting tells the user that another run works on the same units.
func (c *command) waiting() { c.say("Waiting for another unitgen that works in %s.", c.site.Dir) }

// say prints a line for the user to stderr, as it is not the output of a verb.
func (c *command) say(format string, args ...any) { c.progress.Say(fmt.Sprintf(format, args...)) }
