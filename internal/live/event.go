package live

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/plan"
)

// Step is what an Event tells.
type Step int

// The steps, in the order in which an operation may go through them.
const (
	Stopping     Step = iota // the app stops, as its listeners change
	Wrote                    // Change has been made to the disk
	AsItShould               // nothing had to be written
	Reloaded                 // PID 1 has read the units again, which Took a time
	Starting                 // the app starts again
	Started                  // Instances were added and run
	Stopped                  // Instances were taken away
	Ready                    // all instances, as many as Instances has, are up at Listen
	NotStarted               // the app is written, and Command starts it
	OldSettings              // what runs keeps its old settings until Command
	Instance                 // the one of Instances is in Phase, with Left connections; told again and again
	EndsAtLogout             // the user's units end with the session, unless Command is typed
)

// Event is one step of an operation that is done, or under way. String is the line for the user.
type Event struct {
	Step      Step
	App       app.Name
	Instances []int
	Change    plan.Change
	Took      time.Duration
	Listen    []app.Listen
	Path      app.Path
	Command   string
	Phase     Phase
	Left      int  // connections of an instance that drains; less than 0: not known
	Kept      bool // nothing has happened to the instance: it still runs as before the operation
}

func (e Event) String() string {
	switch e.Step {
	case Stopping:
		return fmt.Sprintf("Stopping %s, as its listeners change.", e.App)
	case Wrote:
		past := map[string]string{"create": "Created", "change": "Changed", "link": "Linked", "remove": "Removed"}
		return fmt.Sprintf("%s %s.", past[e.Change.Verb()], e.Change.Path)
	case AsItShould:
		return fmt.Sprintf("%s is up to date, nothing was written.", e.App)
	case Reloaded:
		return fmt.Sprintf("Reloaded systemd in %s.", e.Took.Round(time.Millisecond))
	case Starting:
		return fmt.Sprintf("Starting %s.", e.App)
	case Started:
		return fmt.Sprintf("Started %s.", instanceNames(e.App, e.Instances))
	case Stopped:
		return fmt.Sprintf("Stopped %s.", instanceNames(e.App, e.Instances))
	case Ready:
		return upLine(e.App, len(e.Instances), len(e.Instances), e.Listen, e.Path)
	case NotStarted:
		return "The app is not started. Start with: " + e.Command
	case OldSettings:
		return "Running instances keep the old settings. Apply with: " + e.Command
	case Instance:
		return instanceNames(e.App, e.Instances) + ": " + phaseText(e)
	case EndsAtLogout:
		return "Your units end when you log out. Keep them with: " + e.Command
	}
	return fmt.Sprintf("step %d", int(e.Step))
}

// Written are the events of a plan that has been written.
func Written(p *plan.Plan) []Event {
	if len(p.Changes) == 0 {
		return []Event{{Step: AsItShould, App: p.App.Name}}
	}
	return Removed(p.App.Name, p.Changes)
}

// Removed are the events of changes that have been made.
func Removed(name app.Name, changes []plan.Change) []Event {
	var events []Event
	for _, c := range changes {
		events = append(events, Event{Step: Wrote, App: name, Change: c})
	}
	return events
}

// upLine says how many of an app's instances are up, and where it listens.
func upLine(name app.Name, up, of int, listen []app.Listen, path app.Path) string {
	return fmt.Sprintf("%s: %d/%d instances up at %s (%s)", name, up, of, ListenWords(listen), path)
}

// ListenWords says where an app listens: "port 3000", "127.0.0.1:3000".
func ListenWords(listen []app.Listen) string {
	var words []string
	for _, l := range listen {
		word := l.String()
		if !l.IsUnix() && !l.Addr.IsValid() {
			word = "port " + word
		}
		words = append(words, word)
	}
	return strings.Join(slices.Compact(words), ", ")
}

// instanceNames lists instances for the user: app@2, app@3.
func instanceNames(name app.Name, instances []int) string {
	names := unitNames(instances, name.Instance)
	slices.Sort(names)
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], ".service")
	}
	return strings.Join(names, ", ")
}
