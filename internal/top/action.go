package top

import (
	"context"
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// Verb is what is done with a target.
type Verb string

// The verbs, in the words of the command line.
const (
	Reload  Verb = "reload"
	Restart Verb = "restart" // of an app, or of one instance
	Scale   Verb = "scale"
)

// Action is a verb and what it is done with.
type Action struct {
	Verb   Verb
	Target Target
	Count  string // of instances, to scale by: "+1" or "-1"
}

func (a Action) String() string {
	return strings.TrimSpace(string(a.Verb) + " " + a.Target.String() + " " + a.Count)
}

// question is what is asked before an action that ends processes; empty for one that does not.
func (a Action) question() string {
	switch {
	case a.Verb == Reload:
		return fmt.Sprintf("Reload %s: new code, one instance after another?", a.Target)
	case a.Verb == Restart:
		return fmt.Sprintf("Restart %s?", a.Target)
	case a.Count == "-1":
		return fmt.Sprintf("Stop one instance of %s?", a.Target)
	}
	return ""
}

// step is what an action tells, or its end.
type step struct {
	action Action
	text   string
	ended  bool
	err    error
	next   func() tea.Msg // waits for the step after it
}

// stepsBefore is how many steps an action may be ahead of the screen. Then it waits.
const stepsBefore = 16

// begin carries out an action in the background.
func (m *Model) begin(a Action) tea.Cmd {
	if other, busy := m.running[a.Target.App]; busy {
		m.said = message{fmt.Sprintf("%s is under way.", other), true}
		return nil
	}
	m.running[a.Target.App] = a
	m.said = message{text: a.String() + " …"}
	steps := make(chan step, stepsBefore)
	next := func() tea.Msg { return <-steps }
	return tea.Batch(next, m.behind.run(func(ctx context.Context) tea.Msg {
		tell := func(s step) {
			select {
			case steps <- s:
			case <-ctx.Done(): // the screen has gone
			}
		}
		err := m.world.Do(ctx, a, func(text string) { tell(step{action: a, text: text, next: next}) })
		tell(step{action: a, ended: true, err: err})
		return nil
	}))
}

// stepped takes in a step of an action.
func (m *Model) stepped(s step) tea.Cmd {
	switch {
	case !s.ended:
		m.said = message{text: s.action.String() + ": " + s.text}
		return s.next
	case s.err != nil:
		m.said = failure(s.action.String(), s.err)
	default:
		m.said = message{text: s.action.String() + ": done"}
	}
	delete(m.running, s.action.Target.App)
	if m.leaving && len(m.running) == 0 {
		return tea.Quit
	}
	return nil
}

// failure is the message of an error: all that is wrong, and one thing to type about that.
func failure(what string, err error) message {
	var texts []string
	hint := ""
	for _, part := range app.Parts(err) {
		texts = append(texts, part.Error())
		if h := fault.Hint(part); hint == "" && h != "" {
			hint = " (" + h + ")"
		}
	}
	return message{what + ": " + strings.Join(texts, "; ") + hint, true}
}
