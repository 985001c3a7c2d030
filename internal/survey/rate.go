package survey

import (
	"time"

	"github.com/unitgen/unitgen/internal/app"
)

// Look is what was seen at one time.
type Look struct {
	At   time.Time
	Apps []App
}

// Rate is what is done in a second.
type Rate struct {
	CPU            float64 // processors: 1 for one that is busy all the time
	Connections    float64 // given
	HasCPU         bool
	HasConnections bool
}

// Rate returns what an instance of a has done since the look before. Where that has not seen the
// same run of the same instance, or is nil, it is the average since the instance was started, as
// ps(1) has it for CPU, and since the app's port was opened for connections.
func (l Look) Rate(before *Look, a App, in Instance) Rate {
	var r Rate
	was, earlier := before.instance(a.Name, in.Number)
	if in.Usage.HasCPU && !in.Started.IsZero() {
		used, span := in.Usage.CPU, l.At.Sub(in.Started)
		if was != nil && was.Usage.HasCPU && sameStart(was.Started, in.Started) && was.Usage.CPU <= used {
			used, span = used-was.Usage.CPU, l.At.Sub(before.At)
		}
		r.CPU, r.HasCPU = per(used, span)
	}
	if a.Answered && !a.Opened.IsZero() {
		given, span := in.Steered, l.At.Sub(a.Opened)
		if was != nil && earlier.Answered && sameStart(earlier.Opened, a.Opened) && was.Steered <= given {
			given, span = given-was.Steered, l.At.Sub(before.At)
		}
		r.Connections, r.HasConnections = per(float64(given), span)
	}
	return r
}

// AppRate is the sum of the rates of an app's instances.
func (l Look) AppRate(before *Look, a App) Rate {
	var sum Rate
	for _, in := range a.Instances {
		r := l.Rate(before, a, in)
		sum.CPU += r.CPU
		sum.Connections += r.Connections
		sum.HasCPU = sum.HasCPU || r.HasCPU
		sum.HasConnections = sum.HasConnections || r.HasConnections
	}
	return sum
}

func per(n float64, span time.Duration) (float64, bool) {
	if span <= 0 {
		return 0, false
	}
	return n / span.Seconds(), true
}

// App finds an app; nil for one that was not seen.
func (l *Look) App(name app.Name) *App {
	if l == nil {
		return nil
	}
	for i := range l.Apps {
		if l.Apps[i].Name == name {
			return &l.Apps[i]
		}
	}
	return nil
}

func (l *Look) instance(name app.Name, number int) (*Instance, *App) {
	a := l.App(name)
	if a == nil {
		return nil, nil
	}
	for i := range a.Instances {
		if a.Instances[i].Number == number {
			return &a.Instances[i], a
		}
	}
	return nil, nil
}
