package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/unitgen/unitgen/internal/live"
)

// progress shows what happens to instances. On a terminal each has a line that changes in place, below all that was said
// before; elsewhere each step is a line of its own.
type progress struct {
	w      io.Writer
	live   bool // w is a terminal that can move its cursor
	plain  bool // steps are lines where it is not
	colour choice
	size   func() (columns, rows int)

	steps map[int]live.Event // the latest of each instance
	drawn int                // lines of the block
	asks  atomic.Bool        // somebody is asked something below the block, which stays as it is meanwhile
	asked atomic.Bool        // somebody was: the question has scrolled the block away
}

// tell takes in the step of an instance.
func (p *progress) tell(e live.Event) {
	last, known := p.steps[e.Instances[0]]
	p.steps[e.Instances[0]] = e
	switch {
	case p.live:
		p.draw()
	case !p.plain || e.Phase == live.PhaseWaiting:
	case !known || last.Phase != e.Phase:
		fmt.Fprintln(p.w, e)
	}
}

// say prints a line above the block.
func (p *progress) say(line string) {
	p.clear()
	fmt.Fprintln(p.w, line)
	if p.live && len(p.steps) > 0 {
		p.draw()
	}
}

// end leaves the block as it is. What comes next has a block of its own.
func (p *progress) end() {
	p.drawn = 0
	clear(p.steps)
}

// ask has f ask something below the block. It may run in another goroutine than the rest.
func (p *progress) ask(f func() bool) bool {
	p.asks.Store(true)
	p.asked.Store(true)
	defer p.asks.Store(false)
	return f()
}

func (p *progress) clear() {
	if p.asked.Swap(false) {
		p.drawn = 0
	}
	if p.drawn > 0 {
		fmt.Fprintf(p.w, "\x1b[%dA\x1b[J", p.drawn)
		p.drawn = 0
	}
}

// draw writes the block over the last one, in one write, so that nothing flickers.
func (p *progress) draw() {
	if p.asks.Load() {
		return
	}
	if p.asked.Swap(false) {
		p.drawn = 0
	}
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	lines := p.lines()
	for _, line := range lines {
		b.WriteString("\r" + line + "\x1b[K\n")
	}
	if len(lines) < p.drawn {
		b.WriteString("\x1b[J")
	}
	p.drawn = len(lines)
	io.WriteString(p.w, b.String())
}

// lines are those of the block. Where the screen has not enough, instances that wait or are ready are only counted.
func (p *progress) lines() []string {
	columns, rows := p.size()
	numbers := make([]int, 0, len(p.steps))
	for i := range p.steps {
		numbers = append(numbers, i)
	}
	slices.Sort(numbers)
	room := max(rows-2, 3)
	var lines []string
	counts := make(map[live.Phase]int)
	for _, i := range numbers {
		e := p.steps[i]
		moves := e.Phase != live.PhaseWaiting && e.Phase != live.PhaseServing && e.Phase != live.PhaseGone
		if len(numbers) <= room || moves && len(lines) < room-1 {
			lines = append(lines, p.line(e, columns))
		} else {
			counts[e.Phase]++
		}
	}
	var rest []string
	for phase := live.PhaseUnknown; phase <= live.PhaseGone; phase++ {
		if counts[phase] > 0 {
			rest = append(rest, fmt.Sprintf("%d %s", counts[phase], phase))
		}
	}
	if len(rest) > 0 {
		lines = append(lines, cut(strings.Join(rest, ", "), columns))
	}
	return lines
}

func (p *progress) line(e live.Event, columns int) string {
	text := cut(e.String(), columns)
	name, phase, ok := strings.Cut(text, ": ")
	if colour := phaseColour(e.Phase); ok && p.colour == yes && colour != "" {
		return name + ": " + colour + phase + plain
	}
	return text
}

// cut keeps a line from taking two of the screen.
func cut(text string, columns int) string {
	if columns < 2 || utf8.RuneCountInString(text) < columns {
		return text
	}
	return string([]rune(text)[:columns-1])
}

func phaseColour(p live.Phase) string {
	switch p {
	case live.PhaseServing, live.PhaseProved:
		return green
	case live.PhaseDraining, live.PhaseEnding, live.PhaseLaunched:
		return yellow
	case live.PhaseFailing:
		return red
	}
	return ""
}
