package view

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/survey"
)

// Status is all that is said of one app.
type Status struct {
	App       app.Name         `json:"app"`
	State     string           `json:"state"`
	Status    string           `json:"status,omitempty"` // the balancer's text, as systemctl status shows it
	Since     *time.Time       `json:"since"`
	Drained   *time.Time       `json:"drained,omitempty"` // since when unitgen drain is in force
	Listen    []string         `json:"listen"`
	Path      app.Path         `json:"path"`     // by the settings, as is
	Strategy  balance.Strategy `json:"strategy"` // the strategy
	Instances []*Instance      `json:"instances"`
	Rollout   *Rollout         `json:"rollout"`
	Shim      *control.Status  `json:"shim,omitempty"` // the balancer's own; nil if it has not answered
}

// Instance is one instance of it. Since is when its program was started.
type Instance struct {
	Instance   string `json:"instance"`
	State      string `json:"state"`
	PID        int    `json:"pid"`
	Invocation string `json:"invocation"`     // systemd's identifier of the start, as in the journal
	Code       string `json:"code,omitempty"` // in a rollout: old or new
	Figures
	Queued *int   `json:"queued"` // given and not accepted yet
	Result string `json:"result,omitempty"`
	Reason string `json:"reason,omitempty"` // why it is not up or not whole, as far as the caller may know
	Hint   string `json:"hint,omitempty"`   // what to type about that
}

func (i *Instance) sorted() (string, *Figures) { return i.State, &i.Figures }

// Add adds an instance of the app, with what a look says of it. It is for the caller to complete
// with what nobody counts.
func (s *Status) Add(a *survey.App, in survey.Instance, look, before *survey.Look) *Instance {
	i := &Instance{Instance: strings.TrimSuffix(s.App.Instance(in.Number), ".service"), State: in.State, PID: in.PID,
		Invocation: in.Invocation, Figures: InstanceFigures(*a, in, look, before)}
	if a.Answered && in.Open >= 0 {
		i.Queued = &in.Queued
	}
	if s.Rollout != nil && !in.Started.IsZero() {
		i.Code = "old"
		if in.Started.After(s.Rollout.Since) {
			i.Code = "new"
		}
	}
	s.Instances = append(s.Instances, i)
	return i
}

// Print prints the app and a table of its instances. Only the table goes without a legend.
func (s *Status) Print(w io.Writer, style Style, now time.Time) error {
	t := figureTable([]string{"INSTANCE", "STATE", "CODE", "PID"}, []string{"QUEUED", "TOTAL", "RESULT"})
	for _, i := range s.Instances {
		pid := ""
		if i.PID != 0 {
			pid = strconv.Itoa(i.PID)
		}
		row := append([]Cell{{Text: i.Instance}, State(i.State), {Text: i.Code}, {Text: pid}}, i.cells()...)
		t.Rows = append(t.Rows, append(row, Cells(number(i.Queued), number(i.ConnectionsTotal), i.Result)...))
	}
	if !style.Legend {
		return t.Print(w, style)
	}
	var b strings.Builder
	s.header(&b, style, now)
	t.Print(&b, style)
	s.reasons(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// header writes what is said of the app as such.
func (s *Status) header(b *strings.Builder, style Style, now time.Time) {
	ago := func(t *time.Time) string { return Span(max(0, now.Sub(*t))) }
	state, up := s.State, 0
	if style.Colour {
		state = StateColour(state).Paint(state)
	}
	for _, i := range s.Instances {
		if i.State == "up" {
			up++
		}
	}
	fmt.Fprintf(b, "%s: %s", s.App, state)
	if s.Since != nil {
		fmt.Fprintf(b, " since %s", ago(s.Since))
	}
	fmt.Fprintf(b, ", %d/%d instances up\n", up, len(s.Instances))
	path, strategy := s.force()
	fmt.Fprintf(b, "Listen: %s   Path: %s   Strategy: %s\n", strings.Join(s.Listen, " "), path, strategy)
	if s.Drained != nil {
		fmt.Fprintf(b, "Drained: since %s (unitgen undrain %s)\n", ago(s.Drained), s.App)
	}
	if s.Rollout != nil {
		fmt.Fprintf(b, "Rollout: %s\n", s.Rollout)
	}
	if s.Status != "" {
		fmt.Fprintf(b, "Status: %s\n", s.Status)
	}
	b.WriteByte('\n')
}

// force is the path in force and why, and the strategy in force beside the one that was asked for.
func (s *Status) force() (path, strategy string) {
	path, strategy = string(s.Path), string(s.Strategy)
	if s.Shim == nil {
		return path, strategy
	}
	if s.Shim.Path != "" && s.Shim.Reason != "" {
		path = s.Shim.Path + " (" + s.Shim.Reason + ")"
	}
	if s.Shim.Strategy != "" && s.Shim.Strategy != strategy {
		strategy = s.Shim.Strategy + " (settings: " + strategy + ")"
	}
	return path, strategy
}

// reasons writes why instances are not up, each reason once.
func (s *Status) reasons(b *strings.Builder) {
	said := make(map[string]bool)
	for _, i := range s.Instances {
		if i.Reason == "" || said[i.Reason] {
			continue
		}
		said[i.Reason] = true
		fmt.Fprintf(b, "\n%s: %s\n", i.Instance, i.Reason)
		if i.Hint != "" {
			fmt.Fprintf(b, "Hint: %s\n", i.Hint)
		}
	}
}
