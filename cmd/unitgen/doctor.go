package main

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/doctor"
	"github.com/unitgen/unitgen/internal/view"
)

// doctor looks at this machine and its apps, or at one app, and prints what is wrong. It changes
// nothing.
func (c *command) doctor(ctx context.Context) (status int, err error) {
	apps, err := c.site.Apps()
	if err != nil {
		return 0, err
	}
	var names []app.Name
	for _, a := range apps {
		names = append(names, a.Name)
	}
	if c.options.name != "" {
		name, err := c.appName()
		if err != nil {
			return 0, err
		}
		if !slices.Contains(names, name) {
			return 0, c.noApp(name)
		}
		names = []app.Name{name}
	}
	m := doctor.Machine{Live: c.live(), Booted: c.booted, Kernel: c.env.kernel(), Accounts: c.accounts()}
	if c.env.steering != nil && c.env.euid == 0 && c.booted && !c.site.UserUnits {
		steering := c.env.steering()
		m.Steering = &steering
		c.say("Steering on this kernel: %s.", steering)
	}
	found, err := m.Examine(ctx, names)
	if err != nil {
		return 0, err
	}
	for _, f := range found {
		fmt.Fprintln(c.env.stdout, f)
	}
	if len(found) > 0 {
		return exitFailure, nil
	}
	c.say("Nothing is wrong with this machine and %s.", view.Counted(len(names), "app"))
	return exitSuccess, nil
}

// kernelRelease is uname -r.
func kernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}
