package view

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/survey"
)

// App is one app of a list.
type App struct {
	App       app.Name `json:"app"`
	Instances int      `json:"instances"`
	Up        *int     `json:"up"` // null: the manager was not asked
	Listen    []string `json:"listen"`
	Path      app.Path `json:"path"`
	State     string   `json:"state"` // active, idle, inactive, failed, ...; one that is set before Fill stays
	Figures
	Rollout *Rollout `json:"rollout"`
}

func (a *App) sorted() (string, *Figures) { return a.State, &a.Figures }

// Fill takes over what a look says of the app. An app that the look has not seen is inactive.
func (a *App) Fill(look, before *survey.Look) {
	up, state := 0, "inactive"
	if seen := look.App(a.App); seen != nil {
		up, state = seen.Up(), seen.State
		a.Figures, a.Rollout = AppFigures(*seen, look, before), RolloutOf(*seen, look.At)
	}
	a.Up = &up
	if a.State == "" {
		a.State = state
	}
}

// Rollout is a rollout under way.
type Rollout struct {
	Since time.Time `json:"since"`
	Text  string    `json:"text"` // in the balancer's words

	took time.Duration
}

// RolloutOf is the rollout of an app; nil for none.
func RolloutOf(a survey.App, now time.Time) *Rollout {
	if a.Rollouts.Running == 0 || !a.Runs() {
		return nil
	}
	text, _, _ := strings.Cut(a.Line, "; ")
	if text = strings.TrimLeft(strings.TrimPrefix(text, "rollout"), ": "); strings.Contains(text, "instances up") {
		text = ""
	}
	began := time.UnixMicro(a.Rollouts.Running)
	return &Rollout{Since: began, Text: text, took: now.Sub(began)}
}

// String is what the rollout does and for how long; empty for none.
func (r *Rollout) String() string {
	if r == nil {
		return ""
	}
	return strings.TrimSpace(r.Text + " for " + Span(r.took))
}

// PrintApps prints apps as a table; nothing if there are none.
func PrintApps(w io.Writer, apps []*App, s Style) error {
	if len(apps) == 0 {
		return nil
	}
	t := figureTable([]string{"APP", "STATE", "INSTANCES"}, []string{"LISTEN", "PATH", "ROLLOUT"})
	for _, a := range apps {
		instances := fmt.Sprint(a.Instances)
		if a.Up != nil {
			instances = fmt.Sprintf("%d/%d", *a.Up, a.Instances)
		}
		row := append([]Cell{{Text: string(a.App)}, State(a.State), {Text: instances}}, a.cells()...)
		t.Rows = append(t.Rows, append(row, Cells(strings.Join(a.Listen, ","), string(a.Path), a.Rollout.String())...))
	}
	return t.Print(w, s)
}
