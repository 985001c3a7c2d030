package view

// Colour is the escape sequence of a terminal that begins a colour; empty for none.
type Colour string

// The colours are systemctl's: green for what runs, yellow for what is on its way, red for what
// failed.
const (
	Green  Colour = "\x1b[0;32m"
	Yellow Colour = "\x1b[0;33m"
	Red    Colour = "\x1b[0;1;31m"
	Plain  Colour = "\x1b[0m" // ends a colour
)

// Paint is a text in a colour.
func (c Colour) Paint(text string) string {
	if c == "" {
		return text
	}
	return string(c) + text + string(Plain)
}

// StateColour is the colour of a state of an app, of an instance or of a unit.
func StateColour(state string) Colour {
	switch state {
	case "active", "up":
		return Green
	case "failed", "down", "stuck":
		return Red
	case "activating", "reloading", "deactivating", "starting", "draining":
		return Yellow
	}
	return ""
}

// State is the cell of a state.
func State(state string) Cell { return Cell{state, StateColour(state)} }
