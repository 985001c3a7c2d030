package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/internal/steer"
)

// finding is something that keeps an app, or all of them, from what unitgen promises: one line of doctor.
type finding struct {
	about   string // an app, or "machine"
	what    string // with its consequence
	command string // that mends it, or shows more
}

// doctor looks at this machine and its apps, or at one app, and prints what is wrong. It changes nothing.
func (c *command) doctor(ctx context.Context) (status int, err error) {
	apps, err := c.findApps()
	if err != nil {
		return 0, err
	}
	if c.options.name != "" {
		name, err := c.appName()
		if err != nil {
			return 0, err
		}
		apps = slices.DeleteFunc(apps, func(a *listed) bool { return a.App != name })
		if len(apps) == 0 {
			return 0, c.noApp(name)
		}
	}
	found, l, err := c.examineMachine(ctx)
	if err != nil {
		return 0, err
	}
	if c.env.selfTest != nil && c.env.euid == 0 && c.booted && !c.site.UserUnits {
		kernel := c.env.selfTest()
		found = append(found, steering(kernel)...)
		c.say("Steering on this kernel: %s.", kernel)
	}
	if l != nil {
		defer l.conn.Close()
	}
	for _, a := range apps {
		of, err := c.examine(ctx, l, a.App)
		if err != nil {
			return 0, err
		}
		found = append(found, of...)
	}
	for _, f := range found {
		fmt.Fprintf(c.env.stdout, "%s: %s: %s\n", f.about, f.what, f.command)
	}
	if len(found) > 0 {
		return exitFailure, nil
	}
	c.say("Nothing is wrong with this machine and %s.", counted(len(apps), "app"))
	return exitSuccess, nil
}

// examineMachine finds what concerns all apps. The manager is nil if it cannot be asked.
func (c *command) examineMachine(ctx context.Context) ([]finding, *live, error) {
	var found []finding
	note := func(err error) {
		var f *fault.Fault
		if errors.As(err, &f) {
			found = append(found, finding{"machine", f.Error(), f.Hint})
		} else if err != nil {
			found = append(found, finding{"machine", err.Error(), "systemctl status"})
		}
	}
	note(c.checkLbshim())
	if release := c.env.kernel(); olderThan(release, 5, 14) {
		found = append(found, finding{"machine", "the kernel is " + release + ", and steering needs Linux 5.14 or later", "uname -a"})
	}
	if _, err := os.Stat(c.env.root + "/sys/fs/cgroup/cgroup.controllers"); err != nil {
		found = append(found, finding{"machine", "it does not run on cgroup v2 alone, by which connections are counted: a drain cannot wait for them",
			"stat -f -c %T /sys/fs/cgroup"})
	}
	if !c.booted {
		found = append(found, finding{"machine", "systemd does not run here, so no app does", "ps -p 1"})
		return found, nil, nil
	}
	l, err := c.dial(ctx)
	if err != nil {
		note(err)
		return found, nil, nil
	}
	note(c.checkUser(ctx, l))
	if c.site.UserUnits && !c.lingers() {
		found = append(found, finding{"machine", "your units end when you log out", "loginctl enable-linger " + c.env.userName})
	}
	return found, l, nil
}

// steering is what is wrong with how the kernel spreads the connections of apps on the steer path.
func steering(kernel steer.SelfTestResult) []finding {
	if kernel.Distribution {
		return nil
	}
	return []finding{{"machine", "connections cannot be spread evenly: " + kernel.Reason, "uname -r"}}
}

// olderThan compares the release of a kernel, as uname(2) has it. One that cannot be read is not older.
func olderThan(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n < 2 {
		return false
	}
	return a < major || a == major && b < minor
}

// kernelRelease is uname -r.
func kernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// examine finds what is wrong with one app.
func (c *command) examine(ctx context.Context, l *live, name app.Name) ([]finding, error) {
	found, a, err := c.examineUnits(ctx, l, name)
	if err != nil {
		return nil, err
	}
	var path app.Path
	if a != nil {
		path = a.DataPath()
	}
	for _, dir := range c.site.Dirs() {
		found = append(found, c.examineDropIns(dir, name, path)...)
	}
	if a != nil && !a.UserUnits {
		if taken := c.takenUser(ctx, *a, c.site.Instances(name)); taken != "" {
			found = append(found, finding{string(name), "its instances would run as " + taken + ", an account that exists", "getent passwd " + taken})
		}
	}
	if a != nil && !a.UserUnits && a.User != "" {
		if accounts, known := c.accounts(ctx, "passwd", a.User); known && len(accounts) == 0 {
			found = append(found, finding{string(name), "its user " + a.User + " does not exist", "useradd --system " + a.User})
		}
	}
	if l == nil || a == nil {
		return found, nil
	}
	l.serving, l.open = false, false
	if err := l.look(ctx, name); err != nil {
		return nil, err
	}
	failed, err := c.examineInstances(ctx, l, *a)
	if err != nil {
		return nil, err
	}
	found = append(found, failed...)
	if l.serving {
		return append(found, c.examineShim(ctx, name)...), nil
	}
	for _, listen := range a.Listen {
		if err := c.checkSocketPath("--listen=", listen); !l.open && err != nil {
			found = append(found, finding{string(name), err.Error(), "ls -l " + listen.Unix})
		}
		if !l.open && errors.Is(checkPort(listen), unix.EADDRINUSE) {
			found = append(found, finding{string(name), fmt.Sprintf("%s holds port %d, so the app cannot start", firstOf(c.question(l, name).Holder(ctx, int(listen.Port)), "another program"), listen.Port),
				fmt.Sprintf("ss -ltnp 'sport = :%d'", listen.Port)})
		}
	}
	return found, nil
}

// examineInstances finds the instances that fail, and why, and those that are not whole.
func (c *command) examineInstances(ctx context.Context, l *live, a app.App) ([]finding, error) {
	var found []finding
	name := a.Name
	for _, i := range c.site.Instances(name) {
		u, err := l.conn.Unit(ctx, name.Instance(i))
		if err != nil {
			return nil, err
		}
		if r := c.unanswered(a, u); r.What != "" {
			found = append(found, finding{strings.TrimSuffix(u.Name, ".service"), r.What, r.Hint})
		}
		if !failing(u) || len(found) >= explain.MaxReasons {
			continue
		}
		r, err := c.question(l, name).Instance(ctx, i)
		if err != nil {
			return nil, err
		}
		if r.What != "" {
			found = append(found, finding{strings.TrimSuffix(u.Name, ".service"), "it is not up: " + r.String(), r.Hint})
		}
	}
	return found, nil
}

// examineUnits compares the units with what this unitgen would write. Those of packages are theirs to write.
func (c *command) examineUnits(ctx context.Context, l *live, name app.Name) (found []finding, a *app.App, err error) {
	unitgen := "unitgen " + string(name)
	if c.site.UserUnits {
		unitgen += " --user-units"
	}
	if !c.site.Owns(name) {
		return c.packaged(name)
	}
	d, err := c.site.Read(name)
	if err != nil {
		var f *fault.Fault
		hint := "unitgen diff " + string(name)
		if errors.As(err, &f) {
			hint = firstOf(f.Hint, hint)
		}
		return []finding{{string(name), strings.ReplaceAll(err.Error(), "\n", "; "), hint}}, nil, nil
	}
	if err := d.App.Validate(); err != nil {
		e := app.Parts(err)[0]
		return []finding{{string(name), "its settings are not possible any more: " + e.Error(), unitgen + " --help"}}, nil, nil
	}
	p, err := d.For(*d.App, len(d.Instances))
	if err != nil {
		return nil, nil, err
	}
	if program := d.Lbshim(); program != c.env.lbshim {
		found = append(found, finding{string(name), fmt.Sprintf("its balancer is %s, and this unitgen's is %s", program, c.env.lbshim), unitgen})
	} else if len(p.Changes) > 0 {
		found = append(found, finding{string(name), fmt.Sprintf("%d of its files differ from what this unitgen writes", len(p.Changes)), unitgen})
	}
	if l != nil && d.App.SystemdVersion != 0 && d.App.SystemdVersion != l.version {
		found = append(found, finding{string(name), fmt.Sprintf("its units are for systemd %d, and this one is %d", d.App.SystemdVersion, l.version),
			fmt.Sprintf("%s --systemd-version=%d", unitgen, l.version)})
	}
	return found, d.App, nil
}

// packaged reads an app whose units are not in the site's own directory.
func (c *command) packaged(name app.Name) ([]finding, *app.App, error) {
	text, err := c.site.Find(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	a, err := app.ParseSettings(name, text)
	if err != nil {
		return []finding{{string(name), err.Error(), "systemctl cat " + name.Service()}}, nil, nil
	}
	if program := plan.LbshimOf(text); program != c.env.lbshim {
		return []finding{{string(name), fmt.Sprintf("its balancer is %s, and this machine's is %s", program, c.env.lbshim), "systemctl cat " + name.Service()}}, &a, nil
	}
	return nil, &a, nil
}

// examineShim asks a running balancer on what its path runs. Units of a user's own manager have no better one.
func (c *command) examineShim(ctx context.Context, name app.Name) []finding {
	if c.env.shimStatus == nil || c.site.UserUnits {
		return nil
	}
	answer, err := c.env.shimStatus(ctx, name.ControlPath(c.runtimeDir()))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return []finding{{string(name), "its balancer does not answer: " + err.Error(), "journalctl -u " + name.Service()}}
	}
	s := (&shown{Shim: answer}).fromShim()
	if s == nil {
		return nil
	}
	var found []finding
	look := "journalctl -u " + name.Service()
	switch {
	case strings.HasPrefix(s.Reason, "classic BPF"):
		found = append(found, finding{string(name), "connections are not spread evenly: " + s.Reason, look})
	case strings.Contains(s.Reason, "not possible here"):
		found = append(found, finding{string(name), "connections are spread in turn: " + s.Reason, look})
	}
	for _, t := range s.Tampering {
		found = append(found, finding{string(name), fmt.Sprintf("an instance changed what it shares with others, %d times: %s", t.Times, t.What), look})
	}
	return found
}
