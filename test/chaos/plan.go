package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// step is a few acts that fall together. Each step begins with all apps in the state they were
// started in, and what it is depends on the seed and its number alone: so a step that failed is
// repeated without those before it.
type step struct {
	number int
	acts   []act
}

// act is one fault and what it hits.
type act struct {
	at       time.Duration // after the step's begin
	fault    *fault
	app      string        // empty for one that hits the machine
	instance int           // 1 to instances, for one that hits an instance
	times    int           // 1 to 3
	length   time.Duration // how long it lasts, for one that does
}

func (s step) String() string {
	acts := make([]string, len(s.acts))
	for i, a := range s.acts {
		acts[i] = a.String()
	}
	return fmt.Sprintf("step %d: %s", s.number, strings.Join(acts, "; "))
}

func (a act) String() string {
	text := fmt.Sprintf("+%s %s", a.at, a.fault.name)
	switch a.fault.hits {
	case anApp:
		text += " " + a.app
	case anInstance:
		text += fmt.Sprintf(" %s@%d", a.app, a.instance)
	}
	if a.fault.repeats {
		text += fmt.Sprintf(" x%d", a.times)
	}
	if a.fault.lasts {
		text += fmt.Sprintf(" for %s", a.length)
	}
	return text
}

// with is the step without the faults and apps that a run leaves out. What is left is the same as
// in a full run.
func (s step) without(names map[string]bool) step {
	var left []act
	for _, a := range s.acts {
		if !names[a.fault.name] && !names[a.app] {
			left = append(left, a)
		}
	}
	return step{s.number, left}
}

// draw returns a step of the plan of seed. Three of four begin with a verb that takes a while, so
// that the others fall into it; one of eight has the same verb a second time at once.
func draw(seed uint64, number int, apps []string) step {
	r := rand.New(rand.NewPCG(seed, uint64(number)))
	s := step{number: number}
	first := pick(r, apps)
	if r.IntN(4) > 0 {
		verb := pick(r, slow)
		s.acts = append(s.acts, drawAct(r, verb, first, 0))
		if r.IntN(8) == 0 {
			s.acts = append(s.acts, drawAct(r, verb, first, drawDelay(r)))
		}
	}
	for range 1 + r.IntN(3) {
		app := first
		if r.IntN(4) == 0 {
			app = pick(r, apps)
		}
		from := quick
		if r.IntN(5) == 0 {
			from = slow
		}
		s.acts = append(s.acts, drawAct(r, pick(r, from), app, drawDelay(r)))
	}
	slices.SortStableFunc(s.acts, func(a, b act) int { return cmp.Compare(a.at, b.at) })
	return s
}

func drawAct(r *rand.Rand, f *fault, app string, at time.Duration) act {
	a := act{at: at, fault: f, app: app, instance: 1 + r.IntN(instances), times: 1 + r.IntN(3),
		length: time.Duration(200+r.IntN(2300)) * time.Millisecond}
	if f.hits == theMachine {
		a.app = ""
	}
	return a
}

// drawDelay returns when an act begins: often within the first tenth of a second, where a verb of
// systemctl changes most.
func drawDelay(r *rand.Rand) time.Duration {
	limit := pick(r, []int{100, 100, 1000, 6000})
	return time.Duration(r.IntN(limit)) * time.Millisecond
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }
