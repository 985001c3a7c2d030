// Package top is the screen of unitgen top: apps and their instances, looked at again and again,
// and keys that change them.
//
// A Model is what bubbletea asks for: Update takes in keys, looks and the ends of actions, and View
// draws. Both only compute. Whatever asks or changes something is a function of World, which
// bubbletea calls in goroutines of its own, so the screen never waits. One look is under way at a
// time: a screen costs one look of package survey per interval, and the 60 last values of each row.
//
// It is not for programs: those read "unitgen list --json".
package top

import (
	"context"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/view"
)

// World is what the screen asks and changes. All functions must be set. All but Now may take their
// time, until their context ends.
type World struct {
	// Look looks at the apps, in the order of their names. It gets the look before, for rates, or
	// nil.
	Look func(ctx context.Context, before *survey.Look) (Picture, error)
	// Do carries out an action, and tells its steps.
	Do func(ctx context.Context, a Action, tell func(step string)) error
	// Logs follows the journal of what is chosen on the terminal until somebody ends that.
	Logs func(ctx context.Context, t Target) error
	Now  func() time.Time
}

// Picture is one look at the apps.
type Picture struct {
	Apps []*view.App
	Look *survey.Look
}

// Options are how the screen is drawn.
type Options struct {
	Every  time.Duration // between two looks
	Sort   string        // one of view.SortKeys
	CPUs   int           // that instances may use
	Colour bool
	ASCII  bool // for terminals without UTF-8

	Environment []string // of the terminal: TERM, COLORTERM, ...
}

// Target is an app, or one of its instances; Instance is 0 for the app.
type Target struct {
	App      app.Name
	Instance int
}

func (t Target) String() string {
	if t.Instance == 0 {
		return string(t.App)
	}
	return unitWord(t)
}

// slow is after how long without an answer the screen says so: a look at many apps takes a fraction
// of that.
const slow = 3 * time.Second

// Model is the screen. It belongs to the goroutine that calls Update and View.
type Model struct {
	behind  *Background
	world   World
	options Options

	width, height int
	now           time.Time
	asked         time.Time // when the look under way was begun; zero for none
	before, look  *survey.Look
	apps          []*view.App
	failed        error // of the latest look
	trails        map[Target]*trail

	open   map[app.Name]bool
	chosen Target
	offset int // rows that are scrolled away
	filter string

	typing  bool // the filter
	help    bool
	asks    *Action // waits for yes or no
	leaving bool    // waits for yes or no, as actions are under way
	running map[app.Name]Action
	said    message
}

// message is the line that says what became of an action.
type message struct {
	text string
	bad  bool
}

// New makes a screen, with a background for what it asks and changes.
func New(b *Background, w World, o Options) *Model {
	return &Model{behind: b, world: w, options: o, now: w.Now(), width: 80, height: 24, trails: make(map[Target]*trail),
		open: make(map[app.Name]bool), running: make(map[app.Name]Action)}
}

// ticked is one interval later.
type ticked time.Time

// looked is the answer of a look.
type looked struct {
	picture Picture
	err     error
}

// followed is the end of the journal's view.
type followed struct{ err error }

// Init begins the first look.
func (m *Model) Init() tea.Cmd { return tea.Batch(m.beginLook(), m.tick()) }

func (m *Model) tick() tea.Cmd {
	return tea.Tick(m.options.Every, func(t time.Time) tea.Msg { return ticked(t) })
}

func (m *Model) beginLook() tea.Cmd {
	m.asked = m.now
	before := m.look
	return m.behind.run(func(ctx context.Context) tea.Msg {
		picture, err := m.world.Look(ctx, before)
		return looked{picture, err}
	})
}

// Update takes in what has happened.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	next := m.update(msg)
	m.scroll()
	return m, next
}

func (m *Model) update(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case ticked:
		m.now = time.Time(msg)
		if m.asked.IsZero() {
			return tea.Batch(m.beginLook(), m.tick())
		}
		return m.tick()
	case looked:
		m.asked, m.failed = time.Time{}, msg.err
		if msg.err == nil {
			m.take(msg.picture)
		}
	case step:
		return m.stepped(msg)
	case followed:
		if msg.err != nil {
			m.said = failure("logs", msg.err)
		}
	case tea.KeyPressMsg:
		return m.key(msg.String(), msg.Text)
	}
	return nil
}

// take takes over a look, and remembers the values of each row.
func (m *Model) take(p Picture) {
	m.before, m.look, m.apps = m.look, p.Look, p.Apps
	trails := make(map[Target]*trail)
	keep := func(t Target, f view.Figures) {
		trails[t] = m.trails[t].and(f)
	}
	for _, a := range p.Apps {
		keep(Target{App: a.App}, a.Figures)
		if seen := p.Look.App(a.App); seen != nil {
			for _, in := range seen.Instances {
				keep(Target{a.App, in.Number}, view.InstanceFigures(*seen, in, p.Look, m.before))
			}
		}
	}
	m.trails = trails
}
