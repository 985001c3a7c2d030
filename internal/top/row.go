package top

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/view"
)

// row is a line of the screen that can be chosen.
type row struct {
	target    Target
	state, up string
	instances int // those of the app; 1 for an instance
	isUp      int // how many of wanted
	wanted    int
	figures   view.Figures
	note      string // a line of its own below
}

// rows are those that the filter lets through, sorted, with the instances of the apps that are
// open.
func (m *Model) rows() []row {
	apps := slices.Clone(m.apps)
	view.Sort(apps, m.options.Sort)
	var rows []row
	for _, a := range apps {
		if !strings.Contains(string(a.App)+" "+a.State, m.filter) {
			continue
		}
		seen := m.look.App(a.App)
		r := row{target: Target{App: a.App}, state: a.State, up: strconv.Itoa(a.Instances), instances: max(a.Instances, 1), wanted: a.Instances, figures: a.Figures}
		if a.Up != nil {
			r.isUp, r.up = *a.Up, strconv.Itoa(*a.Up)+"/"+r.up
		}
		r.note = noteOf(a, seen)
		rows = append(rows, r)
		if seen == nil || !m.open[a.App] {
			continue
		}
		for _, in := range seen.Instances {
			rows = append(rows, row{target: Target{a.App, in.Number}, state: in.State, instances: 1, figures: view.InstanceFigures(*seen, in, m.look, m.before)})
		}
	}
	return rows
}

// noteOf is what is said below an app: its rollout, or that its balancer does not answer.
func noteOf(a *view.App, seen *survey.App) string {
	switch {
	case a.Rollout != nil:
		return "reload: " + a.Rollout.String()
	case seen != nil && seen.Silent != nil && !errors.Is(seen.Silent, fs.ErrPermission):
		return "its balancer does not answer: " + seen.Silent.Error()
	}
	return ""
}

// choice is the row that is chosen: if it has gone, the first one.
func (m *Model) choice() (Target, bool) {
	rows := m.rows()
	if len(rows) == 0 {
		return Target{}, false
	}
	return rows[m.at(rows)].target, true
}

// at is the number of the row that is chosen; that of its app, if it has gone, and else the first
// one.
func (m *Model) at(rows []row) int {
	of := func(t Target) int { return slices.IndexFunc(rows, func(r row) bool { return r.target == t }) }
	if i := of(m.chosen); i >= 0 {
		return i
	}
	return max(0, of(Target{App: m.chosen.App}))
}

// move chooses another row, and says whether the key is one for that.
func (m *Model) move(key string) bool {
	rows := m.rows()
	by := map[string]int{"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -m.room(), "pgdown": m.room(), "home": -len(rows), "end": len(rows)}[key]
	if by == 0 {
		return false
	}
	if len(rows) > 0 {
		m.chosen = rows[min(max(m.at(rows)+by, 0), len(rows)-1)].target
	}
	return true
}

// setOpen opens or closes the app of t, and chooses t.
func (m *Model) setOpen(t Target, open bool) {
	m.chosen, m.open[t.App] = t, open
}

// openAll opens all apps, or closes them if all are open.
func (m *Model) openAll() {
	open := slices.ContainsFunc(m.apps, func(a *view.App) bool { return !m.open[a.App] })
	for _, a := range m.apps {
		m.open[a.App] = open
	}
}

// trail are the latest values of a row, the newest last.
type trail struct{ cpu, connections []float64 }

// remembered is how many values a row has: a minute, at one look in a second.
const remembered = 60

// and is the trail with one look more. A nil trail is empty.
func (t *trail) and(f view.Figures) *trail {
	if t == nil {
		t = new(trail)
	}
	return &trail{with(t.cpu, f.CPUPercent), with(t.connections, f.Connections)}
}

// with appends a value, or less than 0 for one that is not known.
func with[N int | float64](values []float64, n *N) []float64 {
	x := -1.0
	if n != nil {
		x = float64(*n)
	}
	values = append(values, x)
	return values[max(0, len(values)-remembered):]
}
