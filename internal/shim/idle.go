package shim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/explain"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// activity is the use of the app, read from memory shared with the kernel.
type activity struct {
	steered uint64    // connections given to instances, at the last look
	last    time.Time // when that number changed or connections were open
	recent  time.Time // when that number changed
	counted bool      // open is known
	open    int
	at      time.Time // when open was counted
}

// look records a new number of connections and reports whether there were any since the last call.
func (a *activity) look(now time.Time, steered uint64) bool {
	if steered == a.steered && !a.last.IsZero() {
		return false
	}
	a.steered, a.last, a.recent = steered, now, now
	return true
}

// countInterval is how often the status line's number of connections is brought up to date while
// the app is in use. One count walks the kernel's whole table of TCP sockets.
const countInterval = 10 * time.Second

// failuresBeforeReady is how often each instance must have ended before the start is given up ahead
// of its time-out: one failure may be a race with something else that boots, three in a row are the
// program's own.
const failuresBeforeReady = 3

// startGrace is what the instances have beyond the start time-out: they begin later than the shim,
// and each is to say in its own journal what is wrong before the failed start stops it.
const startGrace = 2 * time.Second

// lookStart fails the start when no instance became ready in time, or when all of them keep
// failing.
func (s *Shim) lookStart(now time.Time) error {
	if s.ready {
		return nil
	}
	if waited := now.Sub(s.started); waited >= s.options.StartTimeout+startGrace {
		return fmt.Errorf("start %s: no instance became ready within %s: %s", s.options.App, s.options.StartTimeout, s.reasons())
	}
	for _, in := range s.instances {
		if in.failures < failuresBeforeReady {
			return nil
		}
	}
	if len(s.instances) == 0 {
		return nil
	}
	return fmt.Errorf("start %s: every instance fails: %s", s.options.App, s.reasons())
}

// reasons says why the instances are not up in PID 1's words, which is all that the shim may know,
// each different reason once. What each program said is in its own journal, see package explain.
func (s *Shim) reasons() string {
	if len(s.instances) == 0 {
		return "no instance is enabled (systemctl enable " + s.options.App.Instance(1) + ")"
	}
	seen := make(map[string]bool)
	var reasons []string
	for _, b := range s.pool.Backends() {
		reason := explain.State(s.instances[b.ID].service)
		if reason == "" {
			reason = s.word(b)
		}
		if !seen[reason] {
			seen[reason] = true
			reasons = append(reasons, fmt.Sprintf("%s@%d: %s", s.options.App, b.ID, reason))
		}
	}
	return strings.Join(reasons, "; ")
}

// lookIdle keeps the number of open connections up to date and ends the app when it was idle for
// long enough.
func (s *Shim) lookIdle(now time.Time) error {
	if err := s.lookStart(now); err != nil {
		return err
	}
	if now.Sub(s.activity.at) >= countInterval && (s.activity.open > 0 || s.activity.recent.After(s.activity.at)) {
		s.recount(now)
	}
	if s.options.IdleExit == 0 || !s.ready || now.Sub(s.activity.last) < s.options.IdleExit {
		return nil
	}
	if s.changing() || !s.recount(now) || s.activity.open > 0 {
		s.activity.last = now
		return nil
	}
	return s.sleep(now)
}

// changing says whether an instance starts or stops, or a rollout runs: an app whose instances come
// up one after another is not idle yet, and those that come up need the shim. So does a rollout
// while it only watches, for as long as new code must stay up.
func (s *Shim) changing() bool {
	if len(s.rollouts) > 0 {
		return true
	}
	for _, in := range s.instances {
		if state := in.state(); state == balance.Starting || state == balance.Draining {
			return true
		}
	}
	return false
}

// sleep sends new connections to the parking listener, makes sure that none came in between, and
// ends the shim.
func (s *Shim) sleep(now time.Time) error {
	if err := s.path.SetRing(nil); err != nil {
		return fmt.Errorf("park connections: %w", err)
	}
	if s.recount(now) && s.activity.open == 0 && !s.givenSince(now) {
		s.log.Info("app is idle and stops, the next connection starts it", "idle", s.options.IdleExit.String())
		return ErrIdle
	}
	s.activity.last = now
	s.ring = nil // settle puts the ring back
	return nil
}

// givenSince reports whether a connection came since the last call.
func (s *Shim) givenSince(now time.Time) bool {
	looks, harms := s.path.Look(now)
	s.judge(harms, now)
	return s.activity.look(now, given(looks))
}

// recount counts the open connections of all instances; false if it cannot.
func (s *Shim) recount(now time.Time) bool {
	traffic, err := s.path.Count(now)
	s.activity.at = now
	if err != nil {
		if !errors.Is(err, path.ErrCannotCount) {
			s.log.Warn("count connections, ignoring", "error", err)
		}
		s.activity.counted = false
		return false
	}
	s.activity.counted, s.activity.open = true, 0
	for _, t := range traffic {
		s.activity.open += t.Open
	}
	return true
}
