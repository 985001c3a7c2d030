package top

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/unitgen/unitgen/internal/view"
)

// column is one of the table. keep says in which order they find room on a narrow screen.
type column struct {
	title string
	width int
	right bool
	keep  int
	grows bool                    // takes what is left of the line
	of    func(view.Figures) bool // whether a row has something for it; nil: each has
	text  func(m *Model, r row, s scale, width int) string
}

// Some figures are not known of anybody: memory, where the kernel does not account for it, and
// connections, for all but root.
func hasMemory(f view.Figures) bool      { return f.MemoryBytes != nil }
func hasConnections(f view.Figures) bool { return f.ConnectionsTotal != nil }

// scale is what graphs compare with: the most that a row of its kind has, or had.
type scale struct {
	memory      map[bool]float64 // by whether it is an instance
	connections map[bool]float64
}

func (m *Model) scaleOf(rows []row) scale {
	s := scale{make(map[bool]float64), make(map[bool]float64)}
	for _, r := range rows {
		is := r.target.Instance != 0
		s.memory[is] = max(s.memory[is], value(r.figures.MemoryBytes))
		if t := m.trails[r.target]; t != nil {
			s.connections[is] = max(s.connections[is], slices.Max(t.connections))
		}
	}
	return s
}

// graph is the width of a graph where there is little room; most, where there is a lot.
const (
	graph     = 6
	graphMost = remembered
)

// table are all columns, from left to right.
func table(name int) []column {
	return []column{
		{"APP", name, false, 0, false, nil, func(_ *Model, r row, _ scale, _ int) string {
			if r.target.Instance != 0 {
				return "  @" + strconv.Itoa(r.target.Instance)
			}
			return clean(r.target.String())
		}},
		{"STATE", 10, false, 1, false, nil, func(_ *Model, r row, _ scale, _ int) string { return r.state }},
		{"UP", 5, true, 5, false, nil, func(_ *Model, r row, _ scale, _ int) string { return r.up }},
		{"CPU", 5, true, 2, false, nil, func(_ *Model, r row, _ scale, _ int) string {
			if r.figures.CPUPercent == nil {
				return ""
			}
			return view.Percent(*r.figures.CPUPercent)
		}},
		{"", graph, false, 10, false, nil, func(m *Model, r row, _ scale, width int) string {
			return m.bar(value(r.figures.CPUPercent), m.mostCPU(r), width)
		}},
		{"", graph, false, 6, true, nil, func(m *Model, r row, _ scale, width int) string {
			return m.spark(m.trailOf(r).cpu, m.mostCPU(r), width)
		}},
		{"MEMORY", 6, true, 4, false, hasMemory, func(_ *Model, r row, _ scale, _ int) string {
			if r.figures.MemoryBytes == nil {
				return ""
			}
			return view.Bytes(*r.figures.MemoryBytes)
		}},
		{"", graph, false, 9, false, hasMemory, func(m *Model, r row, s scale, width int) string {
			return m.bar(value(r.figures.MemoryBytes), s.memory[r.target.Instance != 0], width)
		}},
		{"CONNS", 5, true, 3, false, hasConnections, func(_ *Model, r row, _ scale, _ int) string { return number(r.figures.Connections) }},
		{"", graph, false, 7, true, hasConnections, func(m *Model, r row, s scale, width int) string {
			return m.spark(m.trailOf(r).connections, s.connections[r.target.Instance != 0], width)
		}},
		{"CONNS/S", 7, true, 8, false, hasConnections, func(_ *Model, r row, _ scale, _ int) string {
			if r.figures.ConnectionsPerSecond == nil {
				return ""
			}
			return view.PerSecond(*r.figures.ConnectionsPerSecond)
		}},
		{"RESTARTS", 8, true, 12, false, nil, func(_ *Model, r row, _ scale, _ int) string {
			return strconv.FormatUint(r.figures.Restarts, 10)
		}},
		{"UPTIME", 9, true, 11, false, nil, func(m *Model, r row, _ scale, _ int) string {
			if r.figures.Since == nil {
				return ""
			}
			return view.Span(max(0, m.look.At.Sub(*r.figures.Since)))
		}},
	}
}

// Widths of the column of names.
const nameLeast, nameMost = 8, 24

// columns are those that there is room for. Graphs share what is left.
func (m *Model) columns() []column {
	name := nameLeast
	for _, a := range m.apps {
		name = max(name, utf8.RuneCountInString(string(a.App)))
	}
	all := slices.DeleteFunc(table(min(name, nameMost)), func(c column) bool {
		return c.of != nil && len(m.apps) > 0 && !slices.ContainsFunc(m.apps, func(a *view.App) bool { return c.of(a.Figures) })
	})
	byRank := slices.Clone(all)
	slices.SortFunc(byRank, func(a, b column) int { return cmp.Compare(a.keep, b.keep) })
	left := m.width - 1 // the mark of the row that is chosen
	ranks, growing := -1, 0
	for _, c := range byRank {
		if c.width+1 > left {
			break
		}
		left -= c.width + 1
		ranks = c.keep
		if c.grows {
			growing++
		}
	}
	var columns []column
	for _, c := range all {
		if c.keep > max(ranks, 0) {
			continue
		}
		if c.grows {
			c.width = min(c.width+left/growing, graphMost)
		}
		columns = append(columns, c)
	}
	if len(columns) == 1 {
		columns[0].width = max(1, m.width-2)
	}
	return columns
}

// mostCPU is what an app, or an instance, can use: each instance a processor, as far as there are
// any.
func (m *Model) mostCPU(r row) float64 {
	return 100 * float64(min(r.instances, max(1, m.options.CPUs)))
}

func (m *Model) trailOf(r row) *trail {
	if t := m.trails[r.target]; t != nil {
		return t
	}
	return new(trail)
}

// unitWord is how systemd names an instance, without ".service".
func unitWord(t Target) string { return strings.TrimSuffix(t.App.Instance(t.Instance), ".service") }
