package app

// UnitLine is a line of a unit file with those that continue it.
type UnitLine struct {
	Number int // of the first, counted from 1
	Text   string
}

// UnitLines takes the text of a unit file apart as PID 1 does (systemd.syntax(7)): without comments
// and empty lines, and with lines put together that a backslash continues.
func UnitLines(text string) []UnitLine {
	var lines []UnitLine
	for _, l := range logicalLines(text) {
		lines = append(lines, UnitLine{Number: l.number, Text: l.text})
	}
	return lines
}
