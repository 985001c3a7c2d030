// Package doctor finds faults that keep an app, or all apps of a machine, from working as unitgen
// promises. It changes nothing. unitgen runs the same checks before it writes an app, for example
// whether its port is taken.
//
// A check returns findings: the fault with its consequence, and the command to type. Each app costs
// the reading of its files and drop-ins, some calls to PID 1 for each instance, one to its
// balancer, and a look into the journal.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/account"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/steer"
)

// Finding is something that is wrong.
type Finding struct {
	About string // an app, an instance, or "machine"
	What  string // with its consequence
	Fix   string // the command that mends it, or shows more
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.About, f.What, f.Fix) }

// machine is what a Finding is about that concerns all apps.
const machine = "machine"

// Machine is the examined machine.
type Machine struct {
	Live     live.Options // whose Site says which units
	Booted   bool         // systemd runs here
	Kernel   string       // its release, such as 6.12.9
	Accounts account.Book
	Steering *steer.SelfTestResult // what a balancer can do here; nil if that was not tried
}

// Examine finds the faults of the machine and of the apps. The error is of the examination itself.
func (m Machine) Examine(ctx context.Context, apps []app.Name) ([]Finding, error) {
	found, manager := m.examineMachine(ctx)
	defer manager.Close()
	for _, name := range apps {
		e := examination{Machine: m, manager: manager, name: name}
		if err := e.run(ctx); err != nil {
			return nil, err
		}
		found = append(found, e.found...)
	}
	return together(found), nil
}

// together makes one finding of those about several apps that have the same fault and the same fix,
// such as a drop-in for all services.
func together(found []Finding) []Finding {
	var all []Finding
	for _, f := range found {
		at := slices.IndexFunc(all, func(g Finding) bool { return g.What == f.What && g.Fix == f.Fix })
		if at < 0 {
			all = append(all, f)
		} else if all[at].About != f.About {
			all[at].About += ", " + f.About
		}
	}
	return all
}

// examineMachine finds what concerns all apps. The manager is nil if it cannot be asked.
func (m Machine) examineMachine(ctx context.Context) ([]Finding, *live.Manager) {
	var found []Finding
	add := func(what, fix string) { found = append(found, Finding{machine, what, fix}) }
	note := func(err error) {
		var f *fault.Fault
		if errors.As(err, &f) {
			add(f.Error(), f.Hint)
		} else if err != nil {
			add(err.Error(), "systemctl status")
		}
	}
	site := m.Live.Site
	note(CheckLbshim(site.Root, site.Lbshim))
	if olderThan(m.Kernel, 5, 14) {
		add("the kernel is "+m.Kernel+", and steering needs Linux 5.14 or later", "uname -a")
	}
	if _, err := os.Stat(site.Root + "/sys/fs/cgroup/cgroup.controllers"); err != nil {
		add("it does not run on cgroup v2 alone, by which connections are counted: a drain cannot wait for them", "stat -f -c %T /sys/fs/cgroup")
	}
	var manager *live.Manager
	if m.Booted {
		var err error
		manager, err = live.Dial(ctx, m.Live)
		note(err)
	} else {
		add("systemd does not run here, so no app runs", "ps -p 1")
	}
	if manager != nil {
		note(manager.CheckUser(ctx))
		if site.UserUnits && !m.Live.Lingers() {
			add("your units end when you log out", "loginctl enable-linger "+m.Live.UserName)
		}
	}
	return found, manager
}

// CheckLbshim makes sure that the program which all units call is there, and its other half beside it.
func CheckLbshim(root, lbshim string) error {
	beside := lbshim
	if file, err := filepath.EvalSymlinks(root + lbshim); err == nil {
		beside = strings.TrimPrefix(file, root)
	}
	for _, program := range []string{lbshim, filepath.Join(filepath.Dir(beside), "lbshim-balancer")} {
		st, err := os.Stat(root + program)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fault.With(fmt.Errorf("find %s: it is not installed, and no app can run without it", program), "make install")
		case err != nil:
			return fmt.Errorf("find lbshim: %w", err)
		case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
			return fault.With(fmt.Errorf("%s is not an executable file", program), "make install")
		}
	}
	return nil
}

// olderThan compares the release of a kernel, from uname(2). An unreadable release is not older.
func olderThan(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n < 2 {
		return false
	}
	return a < major || a == major && b < minor
}
