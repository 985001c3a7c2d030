package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

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

// run makes every check that is possible.
func (e *examination) run(ctx context.Context) error {
	if err := e.units(); err != nil {
		return err
	}
	e.dropIns()
	if e.app == nil {
		return nil
	}
	e.users(ctx)
	if e.manager == nil {
		return nil
	}
	state, err := e.manager.State(ctx, e.name)
	if err != nil {
		return err
	}
	if err := e.instances(ctx); err != nil {
		return err
	}
	switch {
	case state.Serving:
		e.shim(ctx)
	case !state.Open:
		e.listeners(ctx)
	}
	return nil
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
	} else if len(p.Changes) > 0 {
		e.add(unitgen, "%d of its files differ from what this unitgen writes", len(p.Changes))
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

// instances finds those that fail, and why, and those that are not whole.
func (e *examination) instances(ctx context.Context) error {
	told := 0
	add := func(unit, what, fix string) {
		told++
		e.found = append(e.found, Finding{strings.TrimSuffix(unit, ".service"), what, fix})
	}
	for _, i := range e.Live.Site.Instances(e.name) {
		u, err := e.manager.Conn.Unit(ctx, e.name.Instance(i))
		if err != nil {
			return err
		}
		if r := live.Unanswered(*e.app, u); r.What != "" {
			add(u.Name, r.What, r.Hint)
		}
		if !live.Failing(u) || told >= explain.MaxReasons {
			continue
		}
		r, err := e.manager.Question(e.name).Instance(ctx, i)
		if err != nil {
			return err
		}
		if r.What != "" {
			add(u.Name, "it is not up: "+r.String(), r.Hint)
		}
	}
	return nil
}

// listeners finds what keeps an app that is stopped from its addresses.
func (e *examination) listeners(ctx context.Context) {
	for _, l := range e.app.Listen {
		if err := socketPath(e.Live.Site.Root, "--listen=", l); err != nil {
			e.add("ls -l "+l.Unix, "%v", err)
		}
		if errors.Is(port(l), unix.EADDRINUSE) {
			holder := e.manager.Question(e.name).Holder(ctx, int(l.Port))
			e.add(fmt.Sprintf("ss -ltnp 'sport = :%d'", l.Port), "%s holds port %d, so the app cannot start", cmp.Or(holder, "another program"), l.Port)
		}
	}
}

// shim asks a running balancer about its path. It skips units of a user's manager, which have no
// better path.
func (e *examination) shim(ctx context.Context) {
	if e.ShimStatus == nil || e.Live.Site.UserUnits {
		return
	}
	look := "journalctl -u " + e.name.Service()
	answer, err := e.ShimStatus(ctx, e.name.ControlPath(e.Live.RuntimeDir()))
	if errors.Is(err, fs.ErrPermission) {
		return
	}
	if err != nil {
		e.add(look, "its balancer does not answer: %v", err)
		return
	}
	var s control.Status
	if json.Unmarshal(answer, &s) != nil {
		return
	}
	switch {
	case strings.HasPrefix(s.Reason, "classic BPF"):
		e.add(look, "connections are not spread evenly: %s", s.Reason)
	case strings.Contains(s.Reason, "not possible here"):
		e.add(look, "connections are spread in turn: %s", s.Reason)
	}
	for _, t := range s.Tampering {
		e.add(look, "an instance changed what it shares with others, %d times: %s", t.Times, t.What)
	}
}
