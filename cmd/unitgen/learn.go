package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/bindnotify"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/learn"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
	"github.com/unitgen/unitgen/templates"
)

// guess stands in for the address of an app while it is not known: nothing is opened there.
const guess = "127.0.0.1:65535"

// familyLimit is how long a program may take to show its address family. One that takes its socket from systemd may wait
// for that, and one that is slower than this is served by both families.
const familyLimit = 10 * time.Second

// prepareLearned is prepare, which finds out what a new app's options leave open by a run of its program: the address without
// --listen=, the family of a port. Only --now starts anything.
func (c *command) prepareLearned(ctx context.Context) (*plan.Plan, *live.Manager, error) {
	o := c.options
	if o.now && !o.dryRun && !o.check && !o.given["listen"] && c.isNew() {
		c.guessed = true
		o.give("listen", guess)
	}
	p, m, err := c.prepare(ctx)
	if err != nil || m == nil || p.Was != nil || !o.now {
		return p, m, err
	}
	if c.guessed && !p.App.BindAnswered() {
		m.Close()
		o.give("listen")
		return c.prepare(ctx) // which says that the address is missing
	}
	learned, err := c.learn(ctx, m, p.App)
	if err == nil && learned == nil {
		return p, m, nil
	}
	m.Close()
	if err != nil {
		return nil, nil, err
	}
	c.guessed = false
	o.give("listen", learned...)
	return c.prepare(ctx)
}

func (c *command) isNew() bool {
	name, err := c.appName()
	if err != nil {
		return false
	}
	d, err := c.site.Read(name)
	return err == nil && d.App == nil
}

// learn runs the program of an app once, if that can tell something, and returns the values of --listen= that it shows; nil:
// those that a has.
func (c *command) learn(ctx context.Context, m *live.Manager, a app.App) (listen []string, err error) {
	bare := len(a.Listen) == 1 && !a.Listen[0].IsUnix() && !a.Listen[0].Addr.IsValid()
	if !a.BindAnswered() || !c.guessed && (!bare || a.ReadyOrDefault() == app.ReadyNotify) {
		return nil, nil
	}
	unit, err := templates.Learn(a, c.site.Paths(a), os.DirFS(c.env.root+"/etc/unitgen/templates"), c.guessed)
	if err != nil {
		return nil, err
	}
	trial := learn.Trial{Conn: m.Conn, Endpoint: m.Endpoint, Unit: unit.Name, Text: unit.Text, Limit: min(familyLimit, a.StartTimeoutOrDefault()),
		Dir: c.env.root + filepath.Join(c.live().RuntimeDir(), "systemd", "system")}
	if c.site.UserUnits {
		trial.Dir = c.env.root + filepath.Join(c.live().RuntimeDir(), "systemd", "user")
	}
	if c.guessed {
		trial.Limit = a.StartTimeoutOrDefault()
		c.say("Starting the program once, to see where it listens.")
	}
	began := c.env.now()
	defer func() {
		// Also when the user interrupts: the program must not stay.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, trial.Close(end))
	}()
	state, err := trial.Run(ctx)
	failed := errors.Is(err, learn.ErrEnded) || errors.Is(err, learn.ErrSilent)
	switch {
	case err != nil && !failed:
		return nil, err
	case !c.guessed:
		return c.learnFamily(a, state), nil // what failed here the start will tell
	case failed:
		return nil, c.notLearned(ctx, m, a, trial, state, began, err)
	}
	return c.learnAddress(a, state)
}

// closeTimeout is more than the program has to end (TimeoutStopSec= of its unit).
const closeTimeout = 15 * time.Second

// learnAddress is where a program serves of which nothing was known.
func (c *command) learnAddress(a app.App, state bindnotify.State) ([]string, error) {
	ports := learn.Ports(state)
	if len(ports) > 1 {
		var words []string
		for _, port := range ports {
			words = append(words, live.ListenWords(learn.Listen(state, port)))
		}
		return nil, inputf(c.retype("--listen="+learn.Listen(state, ports[0])[0].String()),
			"the program listens on more than one port, %s: --listen= must say which is the app's", strings.Join(words, " and "))
	}
	learned := learn.Listen(state, ports[0])
	if a.UserUnits && ports[0] < 1024 {
		return nil, inputf("", "the program listens on port %d, which a user's units cannot open", ports[0])
	}
	c.say("The program listens on %s: %s is served there.", live.ListenWords(learned), a.Name)
	return listenValues(learned), nil
}

// learnFamily is the address of an app with a port of both families whose program has one of them, or each by itself.
func (c *command) learnFamily(a app.App, state bindnotify.State) []string {
	port := a.Listen[0].Port
	if a.ProgramPort != 0 {
		port = uint16(a.ProgramPort)
	}
	asked := learn.Listen(state, port)
	six := slices.ContainsFunc(asked, func(l app.Listen) bool { return !l.Addr.Is4() })
	four := slices.ContainsFunc(asked, func(l app.Listen) bool { return l.Addr.Is4() })
	local := len(asked) > 0
	for _, l := range asked {
		local = local && l.Addr.IsLoopback()
	}
	if local {
		c.say("Note: the program asks for %s, and --listen=%s opens it to the network; to keep it on this machine: unitgen %s --listen=%s",
			live.ListenWords(asked), a.Listen[0], a.Name, asked[0])
	}
	if !four {
		return nil
	}
	learned := []app.Listen{{Addr: netip.IPv4Unspecified(), Port: a.Listen[0].Port}}
	words := "IPv4"
	if six {
		learned = append(learned, app.Listen{Addr: netip.IPv6Unspecified(), Port: a.Listen[0].Port})
		words = "IPv4 and IPv6 apart"
	}
	c.say("The program listens by %s: %s is served at %s.", words, a.Name, live.ListenWords(learned))
	return listenValues(learned)
}

func listenValues(listen []app.Listen) (values []string) {
	for _, l := range listen {
		values = append(values, l.String())
	}
	return values
}

// notLearned says why the program of a did not show where it listens.
func (c *command) notLearned(ctx context.Context, m *live.Manager, a app.App, trial learn.Trial, state bindnotify.State, began time.Time, err error) error {
	q := m.Question(a.Name)
	q.Since = began
	q.Trial = &explain.Trial{Unit: trial.Instance(), App: a, Retype: c.retype}
	logs := "journalctl " + c.userOption() + "-e -u " + trial.Instance()
	if what, hint := state.Problem(string(a.Name), nil); what != "" {
		return fault.With(errors.New(what), hint)
	}
	if errors.Is(err, learn.ErrEnded) {
		if r, e := q.Instance(ctx, 1); e == nil && r.What != "" {
			return fault.With(fmt.Errorf("%s did not listen: %s", a.Name, r), r.Hint)
		}
		return fault.With(fmt.Errorf("%w; a program that goes to the background needs its option to stay in the foreground", err), logs)
	}
	limit := app.FormatTimeSpan(trial.Limit)
	if learn.UDP(state) {
		return fault.With(fmt.Errorf("the program has a UDP port and listened on no TCP port within %s: unitgen balances TCP", limit), logs)
	}
	return fault.With(fmt.Errorf("the program listened on no TCP port within %s", limit), c.retype("--start-timeout="+app.FormatTimeSpan(3*trial.Limit)))
}

func (c *command) userOption() string {
	if c.site.UserUnits {
		return "--user "
	}
	return ""
}

// retype is the command line with further options, or with another command, "-- COMMAND".
func (c *command) retype(options string) string {
	args := c.env.args
	command := []string(nil)
	if i := slices.Index(args, "--"); i >= 0 {
		args, command = args[:i], args[i:]
	}
	line := "unitgen " + app.ShellWords(args) + " " + options
	if command != nil && !strings.HasPrefix(options, "-- ") {
		line += " " + app.ShellWords(command)
	}
	return line
}
