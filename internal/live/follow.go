package live

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Phase is how far an operation is with one instance.
type Phase int

// The phases, in the order in which an instance may go through them.
const (
	PhaseUnknown  Phase = iota // it does not run, and nothing was asked of it
	PhaseWaiting               // it runs, and has not had its turn
	PhaseDraining              // it gets no new connections and finishes those it has
	PhaseEnding                // its program was told to end
	PhaseLaunched              // its program starts and is not ready yet
	PhaseServing               // it is ready and takes connections
	PhaseProved                // it was an extra instance of a rollout, and the new code stayed up in it
	PhaseFailing               // its run ended, or did not get ready
	PhaseGone                  // it has stopped
)

func (p Phase) String() string {
	return [...]string{"unknown", "waiting", "draining", "ending", "starting", "ready", "proved", "failed", "stopped"}[p]
}

// drainLook is how often the connections of instances that drain are counted: each time the
// balancer walks the kernel's table of connections, and nobody reads faster.
const drainLook = 500 * time.Millisecond

// watchLimit is for how long PID 1 may say nothing while the watcher reads its units: each takes some
// milliseconds, or seconds on a busy machine.
const watchLimit = 5 * time.Second

// followedProperties are what is read of an instance and, the line of its status, of the balancer.
func followedProperties() []string {
	return []string{"InvocationID", "Result", "ExecMainCode", "StatusText"}
}

// followed is one instance that is followed.
type followed struct {
	last  systemd.UnitState // what PID 1 said last
	first string            // the run at the beginning, or the last one before
	phase Phase
	left  int  // connections, while it drains; less than 0: not known
	kept  bool // the first run goes on
	extra bool
}

// These stand for a stop and a restart of some instances, which leave the balancer as it is.
const (
	stopSome    systemd.Verb = "stop of instances"
	restartSome systemd.Verb = "restart of instances"
)

// follower tells what happens to the instances of an app while an operation on it is under way.
type follower struct {
	*Manager
	name    app.Name
	verb    systemd.Verb
	units   *systemd.Watcher
	at      map[int]*followed
	heard   []systemd.UnitState // what the operation has not taken yet; see followed
	serving bool                // the balancer runs and stays: it may be asked. To ask one that stops would start it again
	failed  []int               // instances that did not get ready
}

// followed runs do and tells what happens to the instances meanwhile, in the goroutine of the
// caller. Those of extra numbers are what a rollout adds for a while. The operation goes on when
// ctx ends, if do does.
//
// A do that decides by the states of the units reads them from states: the first, from before the
// operation, and all that follow. Others give nil.
func (m *Manager) followed(ctx context.Context, name app.Name, verb systemd.Verb, numbers, extra []int, states chan<- systemd.UnitState,
	do func(ctx context.Context) error) (failed []int, err error) {
	defer m.Keep(ctx, name)() // it may stop
	f := &follower{Manager: m, name: name, verb: verb, at: make(map[int]*followed)}
	f.units = systemd.NewWatcher(systemd.WatcherOptions{Endpoint: m.Endpoint, Properties: followedProperties()})
	defer f.units.Close()
	f.units.Watch(name.Service())
	for _, i := range slices.Concat(numbers, extra) {
		f.at[i] = &followed{left: -1, extra: slices.Contains(extra, i), last: systemd.UnitState{Name: name.Instance(i)}}
		f.units.Watch(name.Instance(i))
	}
	f.begin(ctx)
	if states != nil {
		for _, s := range f.at {
			f.heard = append(f.heard, s.last)
		}
	}
	done := make(chan error, 1)
	go func() { done <- do(ctx) }() // awaited below
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for {
		var out chan<- systemd.UnitState
		var next systemd.UnitState
		if len(f.heard) > 0 {
			out, next = states, f.heard[0]
		}
		select {
		case u := <-f.units.Events():
			f.told(u)
			if states != nil {
				f.heard = append(f.heard, u)
			}
		case out <- next:
			f.heard = f.heard[1:]
		case <-tick.C:
			f.count(ctx)
		case err := <-done:
			if ctx.Err() == nil {
				f.settle(ctx)
			}
			return f.failed, err
		}
	}
}

// begin returns when the watcher has read each unit once, and so hears of every later change: an
// extra instance may fail and be gone within a second. What it reads first is what was before the
// operation. If PID 1 says nothing for watchLimit, the operation begins all the same, and some of its
// steps may not be told.
func (f *follower) begin(ctx context.Context) {
	for read := make(map[string]bool); len(read) <= len(f.at); { // and the app's own
		select {
		case u := <-f.units.Events():
			read[u.Name] = true
			if unit, _ := f.name.ParseUnit(u.Name); f.at[unit.Instance] != nil {
				f.at[unit.Instance].first = u.InvocationID
			}
			f.told(u)
		case <-time.After(watchLimit):
			return
		case <-ctx.Done():
			return
		}
	}
}

// settle takes in the states after it, as the last events may still be under way. What is not known
// then is left out.
func (f *follower) settle(ctx context.Context) {
	numbers := make([]int, 0, len(f.at))
	for i := range f.at {
		numbers = append(numbers, i)
	}
	slices.Sort(numbers)
	for _, i := range numbers {
		if u, err := f.Conn.Refresh(ctx, f.at[i].last); err == nil {
			f.told(u)
			if s := f.at[i]; u.Dead() && s.phase != PhaseUnknown && s.phase != PhaseFailing {
				f.set(i, PhaseGone)
			}
		}
	}
}

// told takes in PID 1's word on a unit.
func (f *follower) told(u systemd.UnitState) {
	if u.Name == f.name.Service() {
		f.serving = f.verb != systemd.Stop && f.verb != systemd.Restart && (u.ActiveState == "active" || u.ActiveState == "reloading")
		f.note(u.StatusText)
		return
	}
	unit, _ := f.name.ParseUnit(u.Name)
	s := f.at[unit.Instance]
	if s == nil {
		return
	}
	s.last = u
	s.kept = u.Up() && u.InvocationID == s.first
	if phase := s.next(u, f.verb); phase != s.phase {
		f.set(unit.Instance, phase)
	}
}

// next is the phase that follows from PID 1's word.
func (s *followed) next(u systemd.UnitState, verb systemd.Verb) Phase {
	switch {
	case u.Up() && u.InvocationID == s.first && verb == systemd.Start:
		return PhaseServing
	case u.Up() && u.InvocationID == s.first:
		return max(s.phase, PhaseWaiting)
	case u.Up() && s.phase == PhaseProved:
		return PhaseProved
	case u.Up():
		return PhaseServing
	case u.Leaving() && u.SubState == "stop" && (s.phase == PhaseWaiting || s.phase == PhaseServing || s.phase == PhaseProved || s.phase == PhaseUnknown):
		return PhaseDraining
	case u.Leaving() && u.SubState != "stop-post" && s.phase != PhaseUnknown:
		return PhaseEnding
	case u.Failed() && u.InvocationID != s.first:
		return PhaseFailing
	case u.ActiveState == "activating" && !u.AwaitsRestart():
		return PhaseLaunched
	case u.Dead() && u.JobType == "" && s.phase >= PhaseDraining && s.phase != PhaseFailing && (s.extra || verb == systemd.Stop || verb == stopSome):
		return PhaseGone
	}
	return s.phase
}

// note takes in the balancer's status line: with the first of "rollout 0/4" the extra instances are
// proved.
func (f *follower) note(line string) {
	rest, rolls := strings.CutPrefix(line, "rollout ")
	if !rolls || rest == "" || rest[0] < '0' || rest[0] > '9' {
		return
	}
	for i, s := range f.at {
		if s.extra && s.phase == PhaseServing {
			f.set(i, PhaseProved)
		}
	}
}

// set tells a phase that is new.
func (f *follower) set(number int, phase Phase) {
	s := f.at[number]
	s.phase, s.left = phase, -1
	if phase == PhaseFailing && !slices.Contains(f.failed, number) {
		f.failed = append(f.failed, number)
	}
	f.tell(number)
}

func (f *follower) tell(number int) {
	s := f.at[number]
	if s.phase == PhaseUnknown {
		return
	}
	f.Tell(Event{Step: Instance, App: f.name, Instances: []int{number}, Phase: s.phase, Left: s.left, Kept: s.kept})
}

// count asks the balancer how many connections are left, if anything drains.
func (f *follower) count(ctx context.Context) {
	drains := false
	for _, s := range f.at {
		drains = drains || s.phase == PhaseDraining
	}
	if !drains || !f.serving || f.Ask == nil {
		return
	}
	status, err := f.Ask(ctx, f.name)
	if err != nil {
		return // who may not ask, or asks in the moment of its end, sees no numbers
	}
	for _, in := range status.Instances {
		if s := f.at[in.Instance]; s != nil && s.phase == PhaseDraining && s.left != in.Connections {
			s.left = in.Connections
			f.tell(in.Instance)
		}
	}
}

// phaseText is an instance's phase for the user.
func phaseText(e Event) string {
	text := e.Phase.String()
	switch {
	case e.Phase == PhaseDraining && e.Left == 1:
		return text + ", 1 connection left"
	case e.Phase == PhaseDraining && e.Left >= 0:
		return text + ", " + strconv.Itoa(e.Left) + " connections left"
	case e.Phase == PhaseProved:
		return "proved: the new code stays up"
	}
	return text
}
