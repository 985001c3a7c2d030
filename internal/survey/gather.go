package survey

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

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

// Source is what is looked at.
type Source struct {
	Apps       []app.Name // nil: every app of the manager whose units are loaded
	RuntimeDir string     // /run, or the user's
	Depth      Depth

	// Ask asks the balancer of an app that runs. It may be called from several goroutines at a
	// time. Nil: no balancer is asked.
	Ask func(ctx context.Context, name app.Name) (control.Status, error)
	Log *slog.Logger // of what is left out
}

// asked is how many balancers are asked at a time: each walks the kernel's table of connections.
const asked = 8

// Look looks at all apps, and returns them by name. A balancer that does not answer costs what only
// it knows of its app, and fails nothing.
func (s *Source) Look(ctx context.Context, m Manager) ([]App, error) {
	units, err := m.ListUnits(ctx, s.patterns()...)
	if err != nil {
		return nil, err
	}
	found := s.find(units)
	// Asking a balancer of an app that is idle or stopped would start it.
	running := slices.DeleteFunc(slices.Clone(found), func(f *looked) bool { return !f.Runs() })
	asked := make(chan struct{})
	go func() { // awaited below: the balancers answer while PID 1 does
		defer close(asked)
		s.askAll(ctx, running)
	}()
	err = s.sweep(ctx, m, found)
	<-asked
	if err == nil {
		err = s.complete(ctx, m, found)
	}
	if err != nil {
		return nil, err
	}
	all := make([]App, 0, len(found))
	for _, f := range found {
		f.sum(s)
		all = append(all, f.App)
	}
	return all, nil
}

// patterns match the units that are looked at. Sockets are left out where they can be: apps have as
// many as services, and PID 1 and we work on each unit of a listing.
func (s *Source) patterns() []string {
	switch len(s.Apps) {
	case 0:
		return []string{"*.service", app.Name("*").ControlSocket(), app.Name("*").DiagSocket()}
	case 1:
		name := s.Apps[0]
		return []string{name.Service(), string(name) + "@*.service"}
	}
	return []string{"*.service"}
}

// looked is an app while it is looked at.
type looked struct {
	App
	group  string            // of the balancer
	loaded map[int]*Instance // what systemd knows, by number
	wants  []int
}

// find picks the apps from what is loaded. One that is neither enabled nor running is not loaded,
// and is not among them.
func (s *Source) find(units []systemd.UnitState) []*looked {
	byName := make(map[string]systemd.UnitState, len(units))
	for _, u := range units {
		byName[u.Name] = u
	}
	var found []*looked
	apps := make(map[app.Name]*looked)
	for _, name := range s.names(units, byName) {
		service, loaded := byName[name.Service()]
		if !loaded || service.LoadState != "loaded" {
			continue
		}
		f := &looked{loaded: make(map[int]*Instance)}
		f.Name, f.State = name, service.ActiveState
		apps[name] = f
		found = append(found, f)
	}
	for _, u := range units {
		prefix, _, ok := strings.Cut(u.Name, "@")
		f := apps[app.Name(prefix)]
		if !ok || f == nil {
			continue
		}
		if part, ok := f.Name.ParseUnit(u.Name); ok && part.Role == app.RoleInstance && part.Instance > 0 {
			f.loaded[part.Instance] = &Instance{Number: part.Instance, State: u.Balance().String(), Open: -1}
		}
	}
	slices.SortFunc(found, func(a, b *looked) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return found
}

// names are the apps that are asked for. Without any, they are those whose app-control.socket and
// app-diag.socket are loaded.
func (s *Source) names(units []systemd.UnitState, byName map[string]systemd.UnitState) []app.Name {
	if s.Apps != nil {
		return s.Apps
	}
	var names []app.Name
	for _, u := range units {
		word, ok := strings.CutSuffix(u.Name, "-control.socket")
		name, err := app.ParseName(word)
		if _, diag := byName[name.DiagSocket()]; ok && err == nil && diag {
			names = append(names, name)
		}
	}
	return names
}

// questions is what is asked of systemd in one go.
type questions struct {
	list []systemd.Question
	take []func(any)
}

func (q *questions) ask(unit, property string, ofType bool, take func(any)) {
	q.list = append(q.list, systemd.Question{Unit: unit, Property: property, OfType: ofType})
	q.take = append(q.take, take)
}

func (q *questions) sweep(ctx context.Context, m Manager) error {
	answers, err := m.Sweep(ctx, q.list)
	if err != nil {
		return err
	}
	for i, answer := range answers {
		q.take[i](answer)
	}
	return nil
}

// sweep asks systemd for what its listing of units does not say, while the balancers are asked.
// Each question costs PID 1 and us some 40 µs, so what can be had otherwise is left to complete.
func (s *Source) sweep(ctx context.Context, m Manager, found []*looked) error {
	var q questions
	for _, f := range found {
		service := f.Name.Service()
		q.ask(service, "Wants", false, func(v any) { f.wants = f.instancesIn(v) })
		q.ask(service, "ControlGroup", true, func(v any) { f.group, _ = v.(string) })
		if s.Depth >= Starts {
			q.ask(f.Name.Socket(), "ActiveEnterTimestamp", false, func(v any) { f.Opened = timeOf(v) })
			if f.State == "reloading" {
				q.ask(service, "StatusText", true, func(v any) { f.Line, _ = v.(string) })
			}
		}
		if f.State == "inactive" {
			q.ask(f.Name.Socket(), "ActiveState", false, func(v any) {
				if v == "active" {
					f.State = "idle"
				}
			})
		}
		if s.Depth < Processes {
			continue
		}
		for i, in := range f.loaded {
			unit := f.Name.Instance(i)
			q.ask(unit, "MainPID", true, func(v any) {
				pid, _ := v.(uint32)
				in.PID = int(pid)
			})
			q.ask(unit, "InvocationID", false, func(v any) {
				id, _ := v.([]byte)
				in.Invocation = hex.EncodeToString(id)
			})
		}
	}
	return q.sweep(ctx, m)
}

// complete finds what each instance has used, when it started and how often systemd has restarted
// it. It asks systemd only where it must: where the balancer has not told, and where a control
// group is not in its default place, as by a drop-in with Slice=.
func (s *Source) complete(ctx context.Context, m Manager, found []*looked) error {
	asked := make([]questions, len(found))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	clock := newClock()
	var all sync.WaitGroup
	for i, f := range found {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			f.complete(s.Depth, clock, &asked[i])
		})
	}
	all.Wait()
	var q questions
	for _, of := range asked {
		q.list, q.take = append(q.list, of.list...), append(q.take, of.take...)
	}
	if len(q.list) == 0 {
		return nil
	}
	return q.sweep(ctx, m)
}

func (f *looked) complete(depth Depth, clock clock, q *questions) {
	parent := f.parentGroup()
	told := make(map[int]control.InstanceStatus)
	for _, said := range f.Status.Instances {
		told[said.Instance] = said
	}
	for i, in := range f.loaded {
		unit, said := f.Name.Instance(i), told[i]
		if said.Restarts != nil {
			in.Restarts = uint64(max(*said.Restarts, 0))
		} else {
			q.ask(unit, "NRestarts", true, func(v any) {
				n, _ := v.(uint32)
				in.Restarts = uint64(n)
			})
		}
		if in.State == "down" {
			continue
		}
		if parent != "" {
			in.Group = parent + "/" + unit
		}
		if in.Usage = usageOf(in.Group); !in.Usage.HasCPU {
			q.ask(unit, "ControlGroup", true, in.takeGroup)
		}
		if depth < Starts {
			continue
		}
		if in.Started = clock.start(said.PID); in.Started.IsZero() {
			q.ask(unit, "ExecMainStartTimestamp", true, func(v any) { in.Started = timeOf(v) })
		}
	}
}

// takeGroup takes over the control group from systemd.
func (in *Instance) takeGroup(v any) {
	in.Group, _ = v.(string)
	in.Usage = usageOf(in.Group)
}

// parentGroup is where systemd puts the control groups of the app's instances by default, beside
// that of the balancer (unit_set_default_slice in src/core/unit.c); empty if the balancer has none.
func (f *looked) parentGroup() string {
	beside, ok := strings.CutSuffix(f.group, "/"+f.Name.Service())
	if !ok {
		return ""
	}
	manager := "system" // the system's; a user's has app.slice
	if strings.HasSuffix(beside, "/app.slice") {
		manager = "app"
	}
	return beside + "/" + manager + "-" + strings.ReplaceAll(string(f.Name), "-", `\x2d`) + ".slice"
}

// timeOf reads a time stamp of systemd's.
func timeOf(v any) time.Time {
	if µs, ok := v.(uint64); ok && µs > 0 {
		return time.UnixMicro(int64(µs))
	}
	return time.Time{}
}

// instancesIn are the instances among the units that app.service wants.
func (f *looked) instancesIn(wants any) []int {
	names, _ := wants.([]string)
	var all []int
	for _, name := range names {
		if part, ok := f.Name.ParseUnit(name); ok && part.Role == app.RoleInstance && part.Instance > 0 {
			all = append(all, part.Instance)
		}
	}
	return all
}

// askAll asks the balancers of apps, and writes their answers alone: the rest of an app is being
// filled in meanwhile.
func (s *Source) askAll(ctx context.Context, running []*looked) {
	if s.Ask == nil {
		return
	}
	slots := make(chan struct{}, asked)
	var all sync.WaitGroup
	for _, f := range running {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			status, err := s.Ask(ctx, f.Name)
			if err != nil {
				f.Silent = err
				s.Log.Warn("ask balancer, leaving out what only it knows", "app", string(f.Name), "error", err)
				return
			}
			f.Status, f.Answered = status, true
		})
	}
	all.Wait()
}

// sum joins what systemd, the balancer, the kernel and the rollouts say.
func (f *looked) sum(s *Source) {
	instances := make(map[int]*Instance)
	for _, i := range f.wants {
		instances[i] = &Instance{Number: i, State: "down", Open: -1}
	}
	f.Wanted = len(f.wants)
	for i, in := range f.loaded {
		if in.State == "down" && !slices.Contains(f.wants, i) && in.Restarts == 0 {
			continue // systemd has not forgotten it yet
		}
		instances[i] = in
	}
	for _, said := range f.Status.Instances {
		in := instances[said.Instance]
		if in == nil || said.Instance < 1 || said.Instance > app.MaxInstances {
			continue
		}
		in.Steered, in.Open, in.Queued = said.Steered, said.Connections, said.Queued
		if slices.Contains(States(), said.State) {
			in.State = said.State
		}
	}
	for _, in := range instances {
		f.Instances = append(f.Instances, *in)
	}
	slices.SortFunc(f.Instances, func(a, b Instance) int { return a.Number - b.Number })
	f.Balancer = usageOf(f.group)
	var err error
	if f.Rollouts, err = tally.Read(filepath.Dir(f.Name.ControlPath(s.RuntimeDir))); err != nil {
		s.Log.Warn("count rollouts, ignoring", "app", string(f.Name), "error", fmt.Sprint(err))
	}
}
