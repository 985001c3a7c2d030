package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/systemd"
	"github.com/unitgen/unitgen/templates"
)

// command is one run of unitgen.
type command struct {
	env     *env
	options *options
	site    site
	file    *settingsFile // of --file=; nil for none
	guessed bool          // the app's address stands in for one that is to be learned
	release func()        // lets other runs into the site's directory; may be called more than once
}

// run is unitgen; it returns the exit status.
func run(ctx context.Context, e *env) int {
	if len(e.args) > 2 && e.args[0] == "completion" && e.args[1] == "words" {
		printWords(e, e.args[2], e.args[3:])
		return exitSuccess
	}
	o, err := parseOptions(e.args)
	if err != nil {
		return report(e.stderr, err)
	}
	switch {
	case o.showVersion:
		fmt.Fprintln(e.stdout, "unitgen", e.version)
		return exitSuccess
	case o.help, o.verb == "help":
		fmt.Fprint(e.stdout, helpText)
		return exitSuccess
	}
	if err := errors.Join(o.judge()...); err != nil {
		return report(e.stderr, err)
	}
	c := &command{env: e, options: o}
	status, err := c.run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted; systemd goes on with what it was asked for")
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
	}
	if c.options.file != "" {
		if err := c.readFile(); err != nil {
			return 0, err
		}
	}
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
	case "logs":
		return exitSuccess, c.logs()
	case "doctor":
		return c.doctor(ctx)
	}
	return c.generate(ctx)
}

// findSite says where units go.
func (c *command) findSite() (site, error) {
	s := site{userUnits: c.options.userUnits, booted: systemd.Booted(c.env.root)}
	switch {
	case c.options.output != "":
		s.dir, s.packaging = c.absolute(c.options.output), true
	case s.userUnits:
		config := c.env.getenv("XDG_CONFIG_HOME")
		if config == "" {
			home := c.env.getenv("HOME")
			if home == "" {
				return s, inputf("", "--user-units needs $HOME, which is not set")
			}
			config = home + "/.config"
		}
		s.dir = filepath.Join(config, "systemd/user")
	default:
		s.dir = c.env.root + "/etc/systemd/system"
	}
	return s, nil
}

// generate writes or changes the units of an app: the verbs "" and scale.
func (c *command) generate(ctx context.Context) (status int, err error) {
	if _, err := c.appName(); err != nil {
		return 0, err
	}
	reads := c.options.dryRun || c.options.check
	if !reads && !c.site.packaging {
		if !c.site.booted {
			return 0, &fault{errors.New("systemd does not run here, so there is nothing to give units to"), "--output=DIR writes the units into a directory, --dry-run prints them"}
		}
		if err := c.checkLbshim(); err != nil {
			return 0, err
		}
	}
	if !reads {
		release, err := c.lock(ctx)
		if err != nil {
			return 0, err
		}
		c.release = release
		defer release()
	}
	p, l, err := c.prepareLearned(ctx)
	if err != nil {
		return 0, err
	}
	if l != nil {
		defer l.conn.Close()
	}
	for _, warning := range p.app.Warnings() {
		c.say("Note: %s.", warning)
	}
	switch {
	case c.options.check:
		return c.checkPlan(p), nil
	case c.options.dryRun:
		return exitSuccess, c.printPlan(p)
	case l == nil:
		return exitSuccess, c.write(p)
	}
	if err := c.checkUser(ctx, l); err != nil {
		return 0, err
	}
	return exitSuccess, c.apply(ctx, l, p)
}

// prepare finds out what is to change. It changes nothing. The manager is nil if there is none to talk to, or no need.
func (c *command) prepare(ctx context.Context) (*plan, *live, error) {
	name, err := c.appName()
	if err != nil {
		return nil, nil, err
	}
	d, err := readDisk(c.site, name, c.env.root)
	if err != nil {
		return nil, nil, err
	}
	if c.options.verb == "scale" && d.app == nil {
		return nil, nil, c.noApp(name)
	}
	a, err := c.wanted(ctx, name, c.before(d))
	n, countErr := c.count(len(d.instances), d.app == nil)
	if err := errors.Join(countErr, err); err != nil {
		return nil, nil, err
	}
	if err := c.checkAccounts(ctx, a, instancesAfter(d.instances, n)); err != nil {
		return nil, nil, err
	}
	if c.placeChanges(a, d) {
		if err := c.checkPlace(ctx, a); err != nil {
			return nil, nil, err
		}
	}
	if d.app != nil && a.UserUnits != d.app.UserUnits {
		return nil, nil, inputf("", "%s is an app of the other kind: --user-units cannot be changed", name)
	}
	var l *live
	if c.site.booted && !c.site.packaging {
		l, err = c.dial(ctx)
		if err != nil && !c.options.dryRun && !c.options.check && c.options.verb != "diff" {
			return nil, nil, err
		}
	}
	if l != nil && d.app == nil && a.SystemdVersion == 0 {
		a.SystemdVersion = l.version
	}
	p, err := c.compare(a, d, n)
	if err == nil && !c.site.packaging {
		err = errors.Join(c.checkSocketPaths(p), c.checkProperties(ctx, p))
	}
	if err == nil && l != nil && c.options.verb != "diff" && !c.guessed {
		err = checkPorts(p)
	}
	if err != nil {
		if l != nil {
			l.conn.Close()
		}
		return nil, nil, err
	}
	return p, l, nil
}

// compare renders the units and compares them with the disk.
func (c *command) compare(a app.App, d *disk, n int) (*plan, error) {
	override := os.DirFS(c.env.root + "/etc/unitgen/templates")
	files, err := templates.RenderFS(a, templates.Paths{Lbshim: c.env.lbshim}, override)
	if err != nil {
		return nil, err
	}
	pins, err := c.pins(a, instancesAfter(d.instances, n), override)
	if err != nil {
		return nil, err
	}
	files = append(files, pins...)
	var foreign []error
	for _, f := range files {
		foreign = append(foreign, d.foreign[f.Name])
	}
	if err := errors.Join(foreign...); err != nil {
		return nil, err
	}
	if err := checkHeaders(files, a.Name); err != nil {
		return nil, err
	}
	return newPlan(c.site, a, d, files, n), nil
}

// pins are the drop-ins that tie instances to CPUs, one after another and round again.
func (c *command) pins(a app.App, instances []int, override fs.FS) ([]templates.File, error) {
	if !a.Pin {
		return nil, nil
	}
	if c.site.packaging {
		return nil, inputf("", "--pin does not go with --output=, as the CPUs of the machine that it is for are not known here")
	}
	cpus := c.env.cpuNumbers()
	var files []templates.File
	for _, i := range instances {
		f, err := templates.PinFS(a, i, cpus[(i-1)%len(cpus)], override)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func (c *command) noApp(name app.Name) error {
	list := "unitgen list"
	if c.site.userUnits {
		list += " --user-units"
	}
	return inputf(list, "there is no app %q in %s", name, c.site.dir)
}

// write makes the plan's changes to the disk and says which.
func (c *command) write(p *plan) error {
	if err := commit(p.changes); err != nil {
		return err
	}
	for _, ch := range p.changes {
		exists := p.text(c.site, ch.path) != ""
		past := map[string]string{"create": "Created", "change": "Changed", "link": "Linked", "remove": "Removed"}
		c.say("%s %s.", past[ch.verb(exists)], ch.path)
	}
	if len(p.changes) == 0 {
		c.say("%s is as it should be, nothing was written.", p.app.Name)
	}
	return nil
}

// checkPlan is --check: it says what differs, and so does the exit status.
func (c *command) checkPlan(p *plan) int {
	for _, ch := range p.changes {
		exists := p.text(c.site, ch.path) != ""
		c.say("Would %s %s.", ch.verb(exists), ch.path)
	}
	if len(p.changes) > 0 {
		return exitFailure
	}
	return exitSuccess
}

// printPlan is --dry-run: what would be done, then every file under its path.
func (c *command) printPlan(p *plan) error {
	var b strings.Builder
	changed := make(map[string]string)
	for _, ch := range p.changes {
		exists := p.text(c.site, ch.path) != ""
		verb := ch.verb(exists)
		changed[ch.path] = verb
		if ch.target != "" {
			fmt.Fprintf(&b, "# %s %s -> %s\n", verb, ch.path, ch.target)
			continue
		}
		fmt.Fprintf(&b, "# %s %s\n", verb, ch.path)
	}
	if p.listenChanges() {
		fmt.Fprintf(&b, "# listeners change: if %s runs, it is stopped before and started after\n", p.app.Name)
	}
	if len(p.changes) == 0 {
		fmt.Fprintf(&b, "# nothing to do\n")
	}
	for _, f := range p.files {
		fmt.Fprintf(&b, "\n# %s\n%s", filepath.Join(c.site.dir, f.Name), f.Text)
	}
	_, err := fmt.Fprint(c.env.stdout, b.String())
	return err
}

// runtimeDir is where the manager's units have their sockets (%t of systemd.unit(5)).
func (c *command) runtimeDir() string {
	if c.site.userUnits {
		return c.env.getenv("XDG_RUNTIME_DIR")
	}
	return "/run"
}

// diff prints how the disk differs from what the same command line without "diff" would write.
func (c *command) diff(ctx context.Context) error {
	p, l, err := c.prepare(ctx)
	if err != nil {
		return err
	}
	if l != nil {
		l.conn.Close()
	}
	var b strings.Builder
	for _, ch := range p.changes {
		switch {
		case ch.text != "":
			unifiedDiff(&b, ch.path, p.text(c.site, ch.path), ch.text)
		case ch.target != "":
			fmt.Fprintf(&b, "+ link %s -> %s\n", ch.path, ch.target)
		case p.text(c.site, ch.path) != "":
			unifiedDiff(&b, ch.path, p.text(c.site, ch.path), "")
		default:
			fmt.Fprintf(&b, "- link %s\n", ch.path)
		}
	}
	_, err = fmt.Fprint(c.env.stdout, b.String())
	return err
}

// say tells the user what happens: talk, so it goes to stderr.
func (c *command) say(format string, args ...any) { fmt.Fprintf(c.env.stderr, format+"\n", args...) }
