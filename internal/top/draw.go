package top

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/view"
)

// chosenStyle is reverse video, which is no colour.
const chosenStyle view.Colour = "\x1b[7m"

// View draws the screen. It is as high as the terminal, and no line is wider.
func (m *Model) View() tea.View {
	v := tea.NewView(strings.Join(m.lines(), "\n"))
	v.AltScreen = true
	return v
}

// lines are those of the screen. Where there are few, the keys go first, then the header, then the
// summary.
func (m *Model) lines() []string {
	var above, below []string
	if m.height >= 3 {
		above = append(above, m.summary())
	}
	columns := m.columns()
	if m.height >= 5 {
		above = append(above, m.header(columns))
	}
	below = append(below, m.messages()...)
	if m.height >= 6 {
		below = append(below, m.keys())
	}
	body, _, _ := m.body(columns)
	body = body[min(m.offset, len(body)):]
	if m.help {
		body = nil
		for _, line := range helpLines() {
			body = append(body, m.cut(line))
		}
	}
	room := m.room()
	body = append(body[:min(len(body), room)], make([]string, max(0, room-len(body)))...)
	return slices.Concat(above, body, below)
}

// keys are the words of the last line, as far as there is room.
func (m *Model) keys() string {
	for _, line := range []string{
		"Enter:open r:reload R:restart +/-:scale l:logs s:sort /:filter ?:help q:quit", "r:reload R:restart +/-:scale l:logs ?:help q:quit",
	} {
		if len(line) <= m.width {
			return line
		}
	}
	return m.cut("?:help q:quit")
}

// room is how many lines there are for rows.
func (m *Model) room() int {
	fixed := len(m.messages())
	for _, least := range []int{3, 5, 6} { // as lines has them
		if m.height >= least {
			fixed++
		}
	}
	return max(1, m.height-fixed)
}

// summary is the first line: all apps that are shown, or why there is nothing new.
func (m *Model) summary() string {
	clock := m.now.Format(time.TimeOnly)
	text := m.trouble()
	bad := text != ""
	if text == "" {
		text = m.sums()
	}
	text = m.cutTo(clean(text), m.width-len(clock)-1)
	gap := max(1, m.width-utf8.RuneCountInString(text)-len(clock))
	if bad {
		text = m.paint(view.Red, text)
	}
	if m.width < 2*len(clock) {
		return text
	}
	return text + strings.Repeat(" ", gap) + clock
}

// trouble says why the screen is not as of now; empty if it is.
func (m *Model) trouble() string {
	late := m.now.Sub(m.asked)
	switch {
	case !m.asked.IsZero() && late >= slow:
		return fmt.Sprintf("No answer from systemd or a balancer for %s.", view.Span(late))
	case m.failed != nil && m.look == nil:
		return failure("look", m.failed).text
	case m.failed != nil:
		return fmt.Sprintf("As of %s. %s", m.look.At.In(m.now.Location()).Format(time.TimeOnly), failure("look", m.failed).text)
	}
	return ""
}

func (m *Model) sums() string {
	if m.look == nil {
		return "Looking at the apps …"
	}
	var up, wanted, open int
	var cpu float64
	var memory int64
	shown := 0
	for _, r := range m.rows() {
		if r.target.Instance != 0 {
			continue
		}
		shown++
		f := r.figures
		cpu += max(0, value(f.CPUPercent))
		memory += int64(max(0, value(f.MemoryBytes)))
		open += int(max(0, value(f.Connections)))
		wanted += r.wanted
		up += min(r.isUp, r.wanted) // without the extra instances of a rollout
	}
	text := fmt.Sprintf("%s, %d/%d instances up, CPU %s", view.Counted(shown, "app"), up, wanted, view.Percent(cpu))
	if memory > 0 {
		text += ", memory " + view.Bytes(memory)
	}
	if m.forbidden() {
		text += ", connections: only root may ask"
	} else {
		text += ", " + view.Counted(open, "connection")
	}
	if m.filter != "" {
		text = fmt.Sprintf("%q: %s", m.filter, text)
	}
	return text
}

// forbidden says whether a balancer may not be asked.
func (m *Model) forbidden() bool {
	for _, a := range m.look.Apps {
		if errors.Is(a.Silent, fs.ErrPermission) {
			return true
		}
	}
	return false
}

// longest is how many lines a message may have: the reason of a failure is longer than a line, and
// the rows are what people look at.
const longest = 3

// messages are the lines of what is asked, typed or said; one at least, where there is room for
// any.
func (m *Model) messages() []string {
	var text string
	bad := false
	switch {
	case m.height < 2:
		return nil
	case m.leaving:
		text = "Actions are under way; systemd finishes what it has begun. Quit? [y/N]"
	case m.asks != nil:
		text = m.asks.question() + " [y/N]"
	case m.typing:
		text = "Show only: " + clean(m.filter) + "_"
	default:
		text, bad = clean(m.said.text), m.said.bad
	}
	lines := []string{text}
	if m.height >= 4*longest {
		lines = wrap(text, m.width)
	}
	if len(lines) > longest {
		lines = append(lines[:longest-1], strings.Join(lines[longest-1:], " "))
	}
	for i, line := range lines {
		if lines[i] = m.cut(line); bad {
			lines[i] = m.paint(view.Red, lines[i])
		}
	}
	return lines
}

// wrap breaks a text at its blanks into lines of a width, as far as it has any.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	return append(lines, line)
}

// body are the lines of the rows, and which of them are those of the row that is chosen: from first
// to before last.
func (m *Model) body(columns []column) (lines []string, first, last int) {
	if m.look == nil {
		return nil, 0, 0
	}
	rows := m.rows()
	if len(rows) == 0 {
		return []string{m.cut(m.nothing())}, 0, 0
	}
	at := m.at(rows)
	s := m.scaleOf(rows)
	for i, r := range rows {
		if i == at {
			first = len(lines)
		}
		lines = append(lines, m.line(columns, r, s, i == at))
		if r.note != "" {
			lines = append(lines, m.cut("    "+clean(r.note)))
		}
		if i == at {
			last = len(lines)
		}
	}
	return lines, first, last
}

// scroll keeps the row that is chosen on the screen, and the screen full.
func (m *Model) scroll() {
	lines, first, last := m.body(m.columns())
	room := m.room()
	m.offset = max(0, min(m.offset, first, len(lines)-room), last-room)
}

func (m *Model) nothing() string {
	if m.filter != "" {
		return fmt.Sprintf("No app has %q in its name or state; Esc shows all.", clean(m.filter))
	}
	return "There are no apps. Make one of a program with: unitgen APP --instances=4 --now -- COMMAND"
}

func (m *Model) header(columns []column) string {
	var b strings.Builder
	b.WriteByte(' ')
	for _, c := range columns {
		b.WriteString(" " + pad(c.title, c.width, c.right))
	}
	return m.cut(strings.TrimRight(b.String(), " "))
}

func (m *Model) line(columns []column, r row, s scale, chosen bool) string {
	var b strings.Builder
	b.WriteString(map[bool]string{true: ">", false: " "}[chosen])
	for _, c := range columns {
		text := pad(m.cutTo(c.text(m, r, s, c.width), c.width), c.width, c.right)
		if c.title == "STATE" && !chosen {
			text = m.paint(view.StateColour(r.state), text)
		}
		b.WriteString(" " + text)
	}
	if chosen {
		text := m.cut(b.String())
		return chosenStyle.Paint(text + strings.Repeat(" ", max(0, m.width-utf8.RuneCountInString(text))))
	}
	text := strings.TrimRight(b.String(), " ")
	if len(columns) == 1 { // without colours, and perhaps on a screen of two columns
		return m.cut(text)
	}
	return text
}

func (m *Model) paint(c view.Colour, text string) string {
	if !m.options.Colour {
		return text
	}
	return c.Paint(text)
}

// cut keeps a line within the screen.
func (m *Model) cut(text string) string { return m.cutTo(text, m.width) }

func (m *Model) cutTo(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	mark := "…"
	if m.options.ASCII {
		mark = "~"
	}
	if width < 1 {
		return ""
	}
	return string([]rune(text)[:width-1]) + mark
}

// clean is what others have said, for one line of the screen.
func clean(text string) string {
	return fault.Printable(strings.Join(strings.Fields(text), " "))
}

func pad(text string, width int, right bool) string {
	blanks := strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
	if right {
		return blanks + text
	}
	return text + blanks
}

// value is a figure, or less than 0.
func value[N int | int64 | uint64 | float64](n *N) float64 {
	if n == nil {
		return -1
	}
	return float64(*n)
}

// number is a count; empty where it is not known.
func number(n *int) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(*n)
}
