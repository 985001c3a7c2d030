package survey

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/systemd"
)

// played is a manager with an app that runs, of which one instance is down, and the units of
// others.
type played struct {
	patterns []string
	asked    map[string]bool
}

func (p *played) ListUnits(_ context.Context, patterns ...string) ([]systemd.UnitState, error) {
	p.patterns = patterns
	var units []systemd.UnitState
	for name, active := range map[string]string{
		"web.service": "active", "web.socket": "active", "web@1.service": "active", "web@2.service": "failed", "other.service": "active",
		"other@1.service": "active",
	} {
		units = append(units, systemd.UnitState{Name: name, LoadState: "loaded", ActiveState: active, SubState: "running"})
	}
	return units, nil
}

func (p *played) Sweep(_ context.Context, questions []systemd.Question) ([]any, error) {
	values := map[string]any{
		"Wants": []string{"web@1.service", "web@2.service"}, "ExecMainStartTimestamp": uint64(7e6), "ActiveEnterTimestamp": uint64(5e6),
		"StatusText": "2/2 instances up", "NRestarts": uint32(4), "MainPID": uint32(77), "InvocationID": []byte{0xab, 0xcd},
	}
	answers := make([]any, len(questions))
	if p.asked == nil {
		p.asked = make(map[string]bool)
	}
	for i, q := range questions {
		p.asked[q.Unit+" "+q.Property] = true
		answers[i] = values[q.Property]
	}
	return answers, nil
}

// An app that is asked for by its name is looked at with that of a depth, and only then.
func TestDepth(t *testing.T) {
	for depth, want := range map[Depth]Instance{
		Counters:  {},
		Starts:    {Started: time.Unix(7, 0)},
		Processes: {Started: time.Unix(7, 0), PID: 77, Invocation: "abcd"},
	} {
		want.Number, want.State, want.Restarts, want.Open, want.Steered = 1, "stuck", 4, 3, 9
		s := Source{Apps: []app.Name{"web", "gone"}, RuntimeDir: t.TempDir(), Depth: depth, Log: slog.New(slog.DiscardHandler),
			Ask: func(context.Context, app.Name) (c control.Status, err error) {
				c.Instances = []control.InstanceStatus{{Instance: 1, State: "stuck", Connections: 3, Steered: 9}}
				return c, nil
			}}
		apps, err := s.Look(t.Context(), new(played))
		if err != nil || len(apps) != 1 || len(apps[0].Instances) != 2 {
			t.Fatalf("depth %d: %+v, %v", depth, apps, err)
		}
		if got := apps[0].Instances[0]; got != want {
			t.Errorf("depth %d: got %+v, want %+v", depth, got, want)
		}
		if two := apps[0].Instances[1]; !two.Started.IsZero() || two.State != "down" || two.Open != -1 {
			t.Errorf("depth %d: the one that is down: %+v", depth, two)
		}
		if a := apps[0]; a.Up() != 0 || a.Wanted != 2 || (depth >= Starts) != a.Opened.Equal(time.Unix(5, 0)) || a.Line != "" {
			t.Errorf("depth %d: app %+v", depth, a)
		}
	}
}

// One app costs a listing of its own units alone.
func TestPatterns(t *testing.T) {
	m := new(played)
	s := Source{Apps: []app.Name{"web"}, RuntimeDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	if _, err := s.Look(t.Context(), m); err != nil || !slices.Equal(m.patterns, []string{"web.service", "web@*.service"}) {
		t.Errorf("patterns %q, %v", m.patterns, err)
	}
}

// What the balancer has told is not asked of PID 1 again.
func TestToldRestarts(t *testing.T) {
	restarts := 2
	s := Source{Apps: []app.Name{"web"}, RuntimeDir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Ask: func(context.Context, app.Name) (c control.Status, err error) {
		c.Instances = []control.InstanceStatus{{Instance: 1, State: "up", Restarts: &restarts}, {Instance: 2, State: "down"}}
		return c, nil
	}}
	m := new(played)
	apps, err := s.Look(t.Context(), m)
	if err != nil || apps[0].Instances[0].Restarts != 2 || apps[0].Instances[1].Restarts != 4 {
		t.Errorf("%+v, %v", apps, err)
	}
	if m.asked["web@1.service NRestarts"] || !m.asked["web@2.service NRestarts"] {
		t.Errorf("asked %v", m.asked)
	}
}

// Where systemd puts control groups by default.
func TestParentGroup(t *testing.T) {
	for group, want := range map[string]string{
		"/system.slice/my-web.service":                                           `/system.slice/system-my\x2dweb.slice`,
		"/user.slice/user-1000.slice/user@1000.service/app.slice/my-web.service": `/user.slice/user-1000.slice/user@1000.service/app.slice/app-my\x2dweb.slice`,
		"": "",
	} {
		f := looked{App: App{Name: "my-web"}, group: group}
		if got := f.parentGroup(); got != want {
			t.Errorf("%s: %s, want %s", group, got, want)
		}
	}
}
