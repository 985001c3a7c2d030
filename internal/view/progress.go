package view

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/unitgen/unitgen/internal/live"
)

// Progress shows what happens to instances. On a terminal each has a line that changes in place,
// below all that was said before. Elsewhere each step is a line of its own.
//
// Its methods are called from one goroutine, except Ask.
type Progress struct {
	options ProgressOptions
	steps   map[int]live.Event // the latest of each instance
	drawn   int                // lines of the block
	asks    atomic.Bool        // the user is asked something below the block, which is not drawn meanwhile
	asked   atomic.Bool        // the user was: the question has scrolled the block away
}

// ProgressOptions are where and how a Progress is shown.
type ProgressOptions struct {
	Writer io.Writer
	Moves  bool                       // Writer is a terminal that can move its cursor
	Colour bool                       // and it is to show colours
	Size   func() (columns, rows int) // its size
}

// NewProgress returns a Progress that shows nothing yet.
func NewProgress(o ProgressOptions) *Progress {
	return &Progress{options: o, steps: make(map[int]live.Event)}
}

// Tell shows the step of an instance.
func (p *Progress) Tell(e live.Event) {
	last, known := p.steps[e.Instances[0]]
	p.steps[e.Instances[0]] = e
	switch {
	case p.options.Moves:
		p.draw()
	case e.Kept:
	case !known || last.Phase != e.Phase:
		fmt.Fprintln(p.options.Writer, e)
	}
}

// Say prints a line above the block.
func (p *Progress) Say(line string) {
	p.clear()
	fmt.Fprintln(p.options.Writer, line)
	if p.options.Moves && len(p.steps) > 0 {
		p.draw()
	}
}

// End leaves the block as it is. What comes next has a block of its own.
func (p *Progress) End() {
	p.drawn = 0
	clear(p.steps)
}

// Ask calls f, which asks the user something, and returns the answer. The block is not drawn
// meanwhile. Ask may run in another goroutine than the other methods.
func (p *Progress) Ask(f func() bool) bool {
	p.asks.Store(true)
	p.asked.Store(true)
	defer p.asks.Store(false)
	return f()
}

func (p *Progress) clear() {
	if p.asked.Swap(false) {
		p.drawn = 0
	}
	if p.drawn > 0 {
		fmt.Fprintf(p.options.Writer, "\x1b[%dA\x1b[J", p.drawn)
		p.drawn = 0
	}
}

// draw replaces the block, in one write, so that nothing flickers.
func (p *Progress) draw() {
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
	io.WriteString(p.options.Writer, b.String())
}

// lines returns the lines of the block. If the screen has too few, it counts the instances that
// wait or are ready.
func (p *Progress) lines() []string {
	columns, rows := p.options.Size()
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

func (p *Progress) line(e live.Event, columns int) string {
	text := cut(e.String(), columns)
	name, phase, ok := strings.Cut(text, ": ")
	if colour := phaseColour(e.Phase); ok && p.options.Colour {
		return name + ": " + colour.Paint(phase)
	}
	return text
}

// cut shortens a line to one of the screen.
func cut(text string, columns int) string {
	if columns < 2 || utf8.RuneCountInString(text) < columns {
		return text
	}
	return string([]rune(text)[:columns-1])
}

func phaseColour(p live.Phase) Colour {
	switch p {
	case live.PhaseServing, live.PhaseProved:
		return Green
	case live.PhaseDraining, live.PhaseEnding, live.PhaseLaunched:
		return Yellow
	case live.PhaseFailing:
		return Red
	}
	return ""
}
