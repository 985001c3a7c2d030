package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/rollout/tally"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Manager is what is asked of systemd. *systemd.Conn is one.
type Manager interface {
	ListUnits(ctx context.Context, patterns ...string) ([]systemd.UnitState, error)
	Sweep(ctx context.Context, questions []systemd.Question) ([]any, error)
}

// Source is where the metrics come from.
type Source struct {
	App        app.Name // empty: every app of the manager
	RuntimeDir string   // /run, or the user's

	// Dial connects to the manager, for one scrape; the returned function ends the connection.
	Dial func(ctx context.Context) (m Manager, hangUp func(), err error)
	// Ask asks the balancer of an app that runs.
	Ask func(ctx context.Context, name app.Name) (control.Status, error)
	Log *slog.Logger
}

// asked is how many balancers are asked at a time: each walks the kernel's table of connections.
const asked = 8

// gather looks at all apps. A balancer that does not answer costs what only it knows of its app, and fails nothing.
func (s *Source) gather(ctx context.Context) ([]snapshot, error) {
	m, hangUp, err := s.Dial(ctx)
	if err != nil {
		return nil, err
	}
	defer hangUp()
	units, err := m.ListUnits(ctx, s.patterns()...)
	if err != nil {
		return nil, err
	}
	found := s.find(units)
	if err := sweep(ctx, m, found); err != nil {
		return nil, err
	}
	s.askAll(ctx, found)
	all := make([]snapshot, 0, len(found))
	for _, f := range found {
		f.sum(s)
		all = append(all, f.snapshot)
	}
	return all, nil
}

// patterns match the units that are looked at.
func (s *Source) patterns() []string {
	if s.App == "" {
		return []string{"*.service", "*.socket"}
	}
	return []string{s.App.Service(), s.App.Socket(), s.App.ControlSocket(), s.App.DiagSocket(), string(s.App) + "@*.service"}
}

// looked is an app while it is looked at.
type looked struct {
	snapshot
	group  string         // of the balancer
	loaded map[int]string // state of each instance that systemd knows
	counts map[int]uint64 // restarts
	groups map[int]string
	wants  []int
}

// find picks the apps from what is loaded: each has all of app.service, app-control.socket and app-diag.socket. One that is
// neither enabled nor running is not loaded, and has no metrics.
func (s *Source) find(units []systemd.UnitState) []*looked {
	byName := make(map[string]systemd.UnitState, len(units))
	for _, u := range units {
		byName[u.Name] = u
	}
	var found []*looked
	apps := make(map[app.Name]*looked)
	for _, u := range units {
		word, ok := strings.CutSuffix(u.Name, "-control.socket")
		name, err := app.ParseName(word)
		service, loaded := byName[name.Service()]
		if _, diag := byName[name.DiagSocket()]; !ok || err != nil || !diag || !loaded || service.LoadState != "loaded" {
			continue
		}
		f := &looked{loaded: make(map[int]string), counts: make(map[int]uint64), groups: make(map[int]string)}
		f.name, f.state = name, service.ActiveState
		if f.state == "inactive" && byName[name.Socket()].ActiveState == "active" {
			f.state = "idle"
		}
		apps[name] = f
		found = append(found, f)
	}
	for _, u := range units {
		prefix, _, ok := strings.Cut(u.Name, "@")
		f := apps[app.Name(prefix)]
		if !ok || f == nil {
			continue
		}
		if part, ok := f.name.ParseUnit(u.Name); ok && part.Role == app.RoleInstance && part.Instance > 0 {
			f.loaded[part.Instance] = u.Balance().String()
		}
	}
	slices.SortFunc(found, func(a, b *looked) int { return strings.Compare(string(a.name), string(b.name)) })
	return found
}

// sweep asks systemd for what its listing of units does not say.
func sweep(ctx context.Context, m Manager, found []*looked) error {
	var questions []systemd.Question
	var take []func(any)
	ask := func(unit, property string, ofType bool, f func(any)) {
		questions = append(questions, systemd.Question{Unit: unit, Property: property, OfType: ofType})
		take = append(take, f)
	}
	for _, f := range found {
		ask(f.name.Service(), "Wants", false, func(v any) { f.wants = f.instancesIn(v) })
		ask(f.name.Service(), "ControlGroup", true, func(v any) { f.group, _ = v.(string) })
		for i := range f.loaded {
			ask(f.name.Instance(i), "NRestarts", true, func(v any) {
				if n, ok := v.(uint32); ok {
					f.counts[i] = uint64(n)
				}
			})
			ask(f.name.Instance(i), "ControlGroup", true, func(v any) { f.groups[i], _ = v.(string) })
		}
	}
	answers, err := m.Sweep(ctx, questions)
	if err != nil {
		return err
	}
	for i, answer := range answers {
		take[i](answer)
	}
	return nil
}

// instancesIn are the instances among the units that app.service wants.
func (f *looked) instancesIn(wants any) []int {
	names, _ := wants.([]string)
	var all []int
	for _, name := range names {
		if part, ok := f.name.ParseUnit(name); ok && part.Role == app.RoleInstance && part.Instance > 0 {
			all = append(all, part.Instance)
		}
	}
	return all
}

// askAll asks the balancers that run. Asking one of an app that is idle or stopped would start it.
func (s *Source) askAll(ctx context.Context, found []*looked) {
	slots := make(chan struct{}, asked)
	var all sync.WaitGroup
	for _, f := range found {
		if f.state != "active" && f.state != "reloading" && f.state != "activating" {
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			status, err := s.Ask(ctx, f.name)
			if err != nil {
				s.Log.Warn("ask balancer, leaving out what only it knows", "app", string(f.name), "error", err)
				return
			}
			f.status, f.answered = status, true
		})
	}
	all.Wait()
}

// sum joins what systemd, the balancer, the kernel and the rollouts say.
func (f *looked) sum(s *Source) {
	instances := make(map[int]*instance)
	at := func(i int) *instance {
		if instances[i] == nil {
			instances[i] = &instance{number: i, state: "down", open: -1}
		}
		return instances[i]
	}
	for _, i := range f.wants {
		at(i)
	}
	f.wanted = len(f.wants)
	for i, state := range f.loaded {
		if state == "down" && !slices.Contains(f.wants, i) && f.counts[i] == 0 {
			continue // systemd has not forgotten it yet
		}
		in := at(i)
		in.state, in.restarts, in.usage = state, f.counts[i], usageOf(f.groups[i])
	}
	for _, said := range f.status.Instances {
		in := instances[said.Instance]
		if in == nil || said.Instance < 1 || said.Instance > app.MaxInstances {
			continue
		}
		in.steered, in.open, in.queued = said.Steered, said.Connections, said.Queued
		if slices.Contains(states[:], said.State) {
			in.state = said.State
		}
	}
	for _, in := range instances {
		f.instances = append(f.instances, *in)
	}
	slices.SortFunc(f.instances, func(a, b instance) int { return a.number - b.number })
	f.balancer = usageOf(f.group)
	var err error
	if f.rollouts, err = tally.Read(filepath.Dir(f.name.ControlPath(s.RuntimeDir))); err != nil {
		s.Log.Warn("count rollouts, ignoring", "app", string(f.name), "error", fmt.Sprint(err))
	}
}
