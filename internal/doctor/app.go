package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/live"
	"github.com/unitgen/unitgen/internal/plan"
)

// examination is the examination of one app.
type examination struct {
	Machine
	manager *live.Manager // nil if it cannot be asked
	name    app.Name
	app     *app.App // nil if its settings cannot be read
	found   []Finding
}

// add adds a finding about the app.
func (e *examination) add(fix, format string, args ...any) {
	e.found = append(e.found, Finding{string(e.name), fmt.Sprintf(format, args...), fix})
}

// instance adds a finding about an instance.
func (e *examination) instance(number int, fix, format string, args ...any) {
	about := strings.TrimSuffix(e.name.Instance(number), ".service")
	e.found = append(e.found, Finding{about, fmt.Sprintf(format, args...), fix})
}

// run makes every check that is possible.
func (e *examination) run(ctx context.Context) error {
	if err := e.units(); err != nil {
		return err
	}
	e.dropIns()
	if e.app == nil {
		return nil
	}
	e.command()
	e.users(ctx)
	if e.manager == nil {
		e.steering()
		return nil
	}
	defer e.manager.Keep(ctx, e.name)()
	state, err := e.manager.State(ctx, e.name)
	if err != nil {
		return err
	}
	if err := e.instances(ctx); err != nil {
		return err
	}
	fails, err := e.balancer(ctx)
	if err != nil {
		return err
	}
	if fails || !state.Serving { // one that runs has what it needs
		e.steering()
	}
	taken := false
	switch {
	case fails: // it cannot be asked, or not for long
	case state.Serving:
		e.shim(ctx)
	case !state.Open:
		taken = e.listeners(ctx)
	}
	besides, err := e.beside(ctx)
	if err != nil {
		return err
	}
	return e.failures(ctx, taken || besides)
}

// steering finds a balancer that does not start, as it may not use eBPF.
func (e *examination) steering() {
	a := e.app
	if s := e.Steering; s != nil && !s.Distribution && !a.ClassicBPF && a.DataPath() == app.PathSteer {
		e.add("unitgen "+string(e.name)+" --classic-bpf", "its balancer cannot use eBPF here: %s", s.Reason)
	}
}

// command finds a program that is not there, before a start does.
func (e *examination) command() {
	if err := CheckCommand(*e.app, ""); err != nil {
		e.add(cmp.Or(fault.Hint(err), "unitgen "+string(e.name)+" -- COMMAND"), "%v", err)
	}
}

// units compares the units with those that this unitgen would write. It skips the units of
// packages.
func (e *examination) units() error {
	site := e.Live.Site
	unitgen := "unitgen " + string(e.name)
	if site.UserUnits {
		unitgen += " --user-units"
	}
	if !site.Owns(e.name) {
		return e.packaged()
	}
	d, err := site.Read(e.name)
	if err != nil {
		hint := ""
		if f := (*fault.Fault)(nil); errors.As(err, &f) {
			hint = f.Hint
		}
		e.add(cmp.Or(hint, "unitgen diff "+string(e.name)), "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return nil
	}
	if err := d.App.Validate(); err != nil {
		e.add(unitgen+" --help", "its settings are no longer valid: %v", app.Parts(err)[0])
		return nil
	}
	p, err := d.For(*d.App, len(d.Instances))
	if err != nil {
		return err
	}
	if program := d.Lbshim(); program != site.Lbshim {
		e.add(unitgen, "its balancer is %s, and this unitgen's is %s", program, site.Lbshim)
	} else if n := len(p.Changes) - p.Relisted(); n > 0 {
		e.add(unitgen, "%d of its files differ from what this unitgen writes", n)
	}
	if m := e.manager; m != nil && d.App.SystemdVersion != 0 && d.App.SystemdVersion != m.Version {
		e.add(fmt.Sprintf("%s --systemd-version=%d", unitgen, m.Version), "its units are for systemd %d, and this machine has %d", d.App.SystemdVersion, m.Version)
	}
	e.app = d.App
	return nil
}

// packaged reads an app whose units are not in the site's own directory.
func (e *examination) packaged() error {
	text, err := e.Live.Site.Find(e.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	show := "systemctl cat " + e.name.Service()
	a, err := app.ParseSettings(e.name, text)
	if err != nil {
		e.add(show, "%v", err)
		return nil
	}
	e.app = &a
	if program := plan.LbshimOf(text); program != e.Live.Site.Lbshim {
		e.add(show, "its balancer is %s, and this machine's is %s", program, e.Live.Site.Lbshim)
	}
	return nil
}

// users finds an account that is there and must not be, or is not there and must be.
func (e *examination) users(ctx context.Context) {
	if e.app.UserUnits {
		return
	}
	if taken := e.Accounts.Taken(ctx, *e.app, e.Live.Site.Instances(e.name)); taken != "" {
		e.add("getent passwd "+taken, "its instances would run as %s, an account that exists", taken)
	}
	if user := e.app.User; user != "" {
		if accounts, known := e.Accounts.Find(ctx, "passwd", user); known && len(accounts) == 0 {
			e.add("useradd --system "+user, "its user %s does not exist", user)
		}
	}
}

// loaded are the enabled instances that PID 1 has loaded: others neither run nor have failed. To ask
// about them would load the whole app for each question.
func (e *examination) loaded(ctx context.Context) (numbers []int, err error) {
	all, err := e.manager.Conn.Instances(ctx, e.name)
	enabled := e.Live.Site.Instances(e.name)
	for _, in := range all {
		if slices.Contains(enabled, in.Number) {
			numbers = append(numbers, in.Number)
		}
	}
	return numbers, err
}

// instances finds those that fail, and why, and those that are not whole.
func (e *examination) instances(ctx context.Context) error {
	told := 0
	add := func(number int, r explain.Reason, words string) {
		told++
		e.instance(number, r.Hint, "%s%s", words, r)
	}
	numbers, err := e.loaded(ctx)
	if err != nil {
		return err
	}
	for _, i := range numbers {
		u, err := e.manager.Conn.Unit(ctx, e.name.Instance(i))
		if err != nil {
			return err
		}
		if r := live.Unanswered(*e.app, u); r.What != "" {
			add(i, r, "")
		}
		if !live.Failing(u) || told >= explain.MaxReasons {
			continue
		}
		r, err := e.manager.Question(e.name).Instance(ctx, i)
		if err != nil {
			return err
		}
		if r.What != "" {
			add(i, r, "it is not up: ")
		}
	}
	refused, err := e.manager.Question(e.name).Running(ctx, numbers)
	for _, f := range refused {
		e.found = append(e.found, Finding{strings.Join(f.Instances, ", "), "it runs, but " + f.Reason.String(), f.Hint})
	}
	return err
}

// shim asks a running balancer about its path. It skips units of a user's manager, which have no
// better path.
func (e *examination) shim(ctx context.Context) {
	if e.Live.Ask == nil || e.Live.Site.UserUnits {
		return
	}
	look := "journalctl -u " + e.name.Service()
	s, err := e.Live.Ask(ctx, e.name)
	if errors.Is(err, fs.ErrPermission) {
		return
	}
	if err != nil {
		e.add(look, "its balancer does not answer: %v", err)
		return
	}
	switch {
	case e.app.ClassicBPF: // which was asked for
	case strings.HasPrefix(s.Reason, "classic BPF"):
		e.add(look, "connections are not spread evenly: %s", s.Reason)
	case strings.Contains(s.Reason, "not possible here"):
		e.add(look, "connections are spread in turn: %s", s.Reason)
	}
	for _, t := range s.Tampering {
		e.add(look, "an instance changed what it shares with others, %d times: %s", t.Times, t.What)
	}
	e.accepting(ctx, s)
}

// patience is how long an instance may accept nothing while connections wait for it, and glance is
// how often it is looked at meanwhile.
const (
	patience = 3 * time.Second
	glance   = 200 * time.Millisecond
)

// accepting finds instances that accept no connection: those that the balancer has taken off for
// that, and those that it cannot do without. The latter cost a wait of at most patience.
func (e *examination) accepting(ctx context.Context, first control.Status) {
	waiting := make(map[int]uint64) // what an instance has accepted, while connections wait for it
	for _, in := range first.Instances {
		switch {
		case in.State == "stuck":
			e.instance(in.Instance, "systemctl restart "+e.name.Instance(in.Instance),
				"it accepts no connection, so the balancer gives it none since %s", time.UnixMicro(in.Since).Format(time.TimeOnly))
		case in.State == "up" && in.Queued > 0:
			waiting[in.Instance] = in.Steered - uint64(in.Queued)
		}
	}
	over := time.NewTimer(patience)
	defer over.Stop()
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for last := false; len(waiting) > 0 && !last; {
		select {
		case <-ctx.Done():
			return
		case <-over.C:
			last = true
		case <-tick.C:
		}
		status, err := e.Live.Ask(ctx, e.name)
		if err != nil {
			return
		}
		for _, in := range status.Instances {
			accepted, waits := waiting[in.Instance]
			switch {
			case !waits:
			case in.Queued == 0 || in.State != "up" || in.Steered-uint64(in.Queued) != accepted:
				delete(waiting, in.Instance)
			case last:
				e.instance(in.Instance, "systemctl restart "+e.name.Instance(in.Instance),
					"it has accepted no connection for %s, and %d wait for it", app.FormatTimeSpan(patience), in.Queued)
			}
		}
	}
}
