package channel

import "github.com/unitgen/unitgen/internal/control"

// Listening returns what an instance's program serves. told is true if the program itself reports
// what is missing; otherwise the path knows whether the program serves.
func (c *Channels) Listening(number int) (now control.Listening, told bool) {
	in := c.instances[number]
	if in == nil {
		return now, false
	}
	now.Refused = in.refused
	if !c.receives() || !c.attached(in) {
		return now, false // without Receiving the program's supervisor and a connection tell
	}
	if in.program.unknown {
		return now, true
	}
	for _, address := range in.program.worker.Missing(c.addresses) {
		now.Missing = append(now.Missing, address.String())
	}
	return now, true
}

// Silent reports whether the program of an instance has not sent "ready" yet.
func (c *Channels) Silent(number int) bool {
	in := c.instances[number]
	return !c.attached(in) || !in.program.ready && !(c.receives() && in.program.unknown)
}
