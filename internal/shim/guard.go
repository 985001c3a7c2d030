package shim

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim/path"
)

// An instance may change the listeners that it shares. The path compares them at each look with how
// they were, and puts them back; the shim tells of it. An instance can do it again at once, so the
// shim limits what it tells.
const (
	alarmPause = time.Minute      // between two journal lines about the same thing
	alarmShown = 10 * time.Minute // how long the status line tells of the last one
)

// alarms are the restored changes, by kind. There are at most a few kinds for each instance and
// address.
type alarms struct {
	kinds map[string]*alarm
	last  *alarm
}

type alarm struct {
	text  string // for the status line
	at    time.Time
	count int
	said  time.Time // when the last line was written to the journal
	quiet int       // count at that time
}

// raise notes that something was put back. It writes a line to the journal, unless there was the
// same one a moment ago.
func (s *Shim) raise(now time.Time, text string, attributes ...any) {
	if s.alarms.kinds == nil {
		s.alarms.kinds = make(map[string]*alarm)
	}
	a := s.alarms.kinds[text]
	if a == nil {
		a = &alarm{text: text}
		s.alarms.kinds[text] = a
	}
	a.at, s.alarms.last = now, a
	a.count++
	if !a.said.IsZero() && now.Sub(a.said) < alarmPause {
		return
	}
	s.log.Warn(text, append(attributes, "times", a.count-a.quiet)...)
	a.said, a.quiet = now, a.count
}

// alarm is what the status line says of the last thing that was put back; empty when that is long
// ago.
func (s *Shim) alarm(now time.Time) string {
	if s.alarms.last == nil || now.Sub(s.alarms.last.at) >= alarmShown {
		return ""
	}
	return s.alarms.last.text
}

// tampering lists all that was put back, what happened last first.
func (s *Shim) tampering() []control.Tampering {
	var all []control.Tampering
	for _, a := range s.alarms.kinds {
		all = append(all, control.Tampering{What: a.text, Times: a.count, Last: a.at.UnixMicro()})
	}
	slices.SortFunc(all, func(a, b control.Tampering) int {
		return cmp.Or(cmp.Compare(b.Last, a.Last), cmp.Compare(a.What, b.What))
	})
	return all
}

// judge reports what the path has restored, or could not restore.
func (s *Shim) judge(harms []path.Harm, now time.Time) {
	for _, h := range harms {
		in := s.instances[h.Instance]
		switch {
		case in != nil:
			s.judgeOne(in, h, now)
		case h.Instance != path.Parking: // it has left
		case h.Err != nil:
			s.raise(now, fmt.Sprintf("listener of %s was changed by an instance and cannot be put back: %v", h.Address, h.Err))
		default:
			s.raise(now, fmt.Sprintf("%s (put back): an instance did it", h.What), "address", h.Address)
		}
	}
}

// judgeOne tells of what an instance did to its own listener. Some programs shut their listener
// down when they end, which harms nobody and is not an alarm.
func (s *Shim) judgeOne(in *instance, h path.Harm, now time.Time) {
	name := s.options.App.Instance(in.number)
	if h.Err != nil {
		s.raise(now, fmt.Sprintf("%s changed its listener, which cannot be put back: %v", name, h.Err),
			"instance", in.number, "address", h.Address)
		return
	}
	// A program that calls listen() for itself says a backlog, which is no alarm unless it says so
	// again and again.
	excused := h.Backlog && !in.listened
	in.listened = in.listened || excused
	if b, ok := s.pool.Backend(in.number); ok && b.State == balance.Up && !excused {
		s.raise(now, fmt.Sprintf("%s changed its listener (put back): %s", name, h.What),
			"instance", in.number, "address", h.Address)
		return
	}
	s.log.Debug("listener put back", "instance", in.number, "address", h.Address, "was", h.What)
}

// programEnded answers method Ended: the program of an instance has ended, and PID 1 has not begun
// to poll its listener, which it would give up for good if that does not listen (socket_dispatch_io
// in src/core/socket.c).
func (s *Shim) programEnded(ctx context.Context, r *control.Request) error {
	var p control.Instance
	if err := r.Decode(&p); err != nil {
		return err
	}
	return s.run1(ctx, func() error {
		s.judge(s.path.Renew(p.Instance), time.Now())
		return nil
	})
}
