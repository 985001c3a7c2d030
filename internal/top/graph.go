package top

import (
	"math"
	"strings"
)

// bar is a bar of width cells that is full at most.
func (m *Model) bar(value, most float64, width int) string {
	if most <= 0 || value < 0 {
		return strings.Repeat(" ", width)
	}
	share := min(value/most, 1)
	if m.options.ASCII {
		n := int(math.Round(share * float64(width)))
		return strings.Repeat("#", n) + strings.Repeat(" ", width-n)
	}
	const parts = " ▏▎▍▌▋▊▉█"
	eighths := int(math.Round(share * float64(width) * 8))
	var b strings.Builder
	for range width {
		b.WriteRune([]rune(parts)[min(eighths, 8)])
		eighths = max(0, eighths-8)
	}
	return b.String()
}

// spark is a line of the latest values, of which the highest one can be is most. What is not known
// is blank.
func (m *Model) spark(values []float64, most float64, width int) string {
	levels := []rune("▁▂▃▄▅▆▇█")
	if m.options.ASCII {
		levels = []rune("_.:-=+*#")
	}
	values = values[max(0, len(values)-width):]
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", width-len(values)))
	for _, x := range values {
		switch {
		case x < 0:
			b.WriteByte(' ')
		case most <= 0:
			b.WriteRune(levels[0])
		default:
			b.WriteRune(levels[min(max(int(math.Ceil(x/most*float64(len(levels))))-1, 0), len(levels)-1)])
		}
	}
	return b.String()
}
