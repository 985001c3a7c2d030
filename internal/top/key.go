package top

import (
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/unitgen/unitgen/internal/view"
)

// helpLines say what each key does.
func helpLines() []string {
	return []string{
		"Up, Down, j, k     choose an app or an instance; PgUp, PgDn, Home, End",
		"Enter, Right, Left open and close an app; o opens or closes all",
		"r                  reload the app: new code, one instance after another",
		"R                  restart the app, or the instance that is chosen",
		"+, -               one instance more, one less",
		"l                  follow the journal; Ctrl-C comes back",
		"s, S               sort by the next, or the last, of: " + strings.Join(view.SortKeys(), " "),
		"/                  show only what has a text in its name or state; Esc shows all",
		"q, Ctrl-C          quit; systemd finishes what it has begun",
		"",
		"What ends processes asks once. A bar of CPU is full when each instance has",
		"a processor of its own; those of memory and connections compare the rows.",
	}
}

// key takes in a key; text is what it types.
func (m *Model) key(key, text string) tea.Cmd {
	switch {
	case m.leaving:
		return m.answerLeave(key)
	case key == "ctrl+c":
		return m.leave()
	case m.asks != nil:
		a := *m.asks
		m.asks, m.said = nil, message{}
		if key == "y" || key == "Y" {
			return m.begin(a)
		}
		return nil
	case m.typing:
		m.typeFilter(key, text)
		return nil
	case m.help:
		m.help = false
		return nil
	}
	return m.command(key)
}

// command does what a key means where nothing is being asked or typed.
func (m *Model) command(key string) tea.Cmd {
	switch key {
	case "q":
		return m.leave()
	case "ctrl+z":
		return tea.Suspend
	case "?", "h":
		m.help = true
	case "s":
		m.sortBy(1)
	case "S":
		m.sortBy(-1)
	case "/":
		m.typing, m.filter = true, ""
	case "esc":
		m.filter, m.said = "", message{}
	case "o":
		m.openAll()
	default:
		if m.move(key) {
			return nil
		}
		return m.onChosen(key)
	}
	return nil
}

// onChosen does something with what is chosen, if anything is.
func (m *Model) onChosen(key string) tea.Cmd {
	t, ok := m.choice()
	if !ok {
		return nil
	}
	whole := Target{App: t.App}
	switch key {
	case "enter", "space":
		m.setOpen(whole, !m.open[t.App])
	case "right":
		m.setOpen(t, true)
	case "left":
		m.setOpen(whole, false)
	case "r":
		m.ask(Action{Verb: Reload, Target: whole})
	case "R":
		m.ask(Action{Verb: Restart, Target: t})
	case "-":
		m.ask(Action{Scale, whole, "-1"})
	case "+", "=": // the same key, where + needs Shift
		return m.begin(Action{Scale, whole, "+1"})
	case "l":
		return tea.Exec(onTerminal(func() error { return m.world.Logs(m.behind.ctx, t) }), func(err error) tea.Msg { return followed{err} })
	}
	return nil
}

func (m *Model) ask(a Action) { m.asks = &a }

// leave quits, or asks first if actions are under way.
func (m *Model) leave() tea.Cmd {
	if len(m.running) == 0 {
		return tea.Quit
	}
	m.leaving, m.asks, m.typing = true, nil, false
	return nil
}

func (m *Model) answerLeave(key string) tea.Cmd {
	switch key {
	case "y", "Y", "ctrl+c":
		return tea.Quit
	}
	m.leaving = false
	return nil
}

// typeFilter takes in a key of the filter, which holds at once.
func (m *Model) typeFilter(key, text string) {
	switch key {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.filter = false, ""
	case "backspace":
		if letters := []rune(m.filter); len(letters) > 0 {
			m.filter = string(letters[:len(letters)-1])
		}
	default:
		if len(m.filter)+len(text) <= longestFilter {
			m.filter += text
		}
	}
}

// longestFilter is longer than every name.
const longestFilter = 80

// sortBy goes to another of the keys to sort by.
func (m *Model) sortBy(step int) {
	keys := view.SortKeys()
	i := slices.Index(keys, m.options.Sort)
	m.options.Sort = keys[(i+step+len(keys))%len(keys)]
	m.said = message{text: "Sorted by " + m.options.Sort + "."}
}
