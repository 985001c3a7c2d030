package shim

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/steer"
)

// What an instance may do to the listeners that it shares, and what the shim does about that: each look compares them with
// how they were, puts them back, and says so. An instance can do it again at once, so what is said is limited.
const (
	alarmPause = time.Minute      // between two journal lines about the same thing
	alarmShown = 10 * time.Minute // how long the status line tells of the last one
)

// alarms are what was put back, by what happened. There are at most a few kinds for each instance and address.
type alarms struct {
	kinds map[string]*alarm
	last  *alarm
}

type alarm struct {
	text  string // for the status line
	at    time.Time
	count int
	said  time.Time // when the journal was told
	quiet int       // count at that time
}

// raise notes that something was put back, and tells the journal unless it was told of the same a moment ago.
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

// alarm is what the status line says of the last thing that was put back; empty when that is long ago.
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

// guard is the part of a look that compares what instances share with how it was.
func (s *Shim) guard(now time.Time) {
	for _, a := range s.addresses {
		if s.closed && s.handsOff() {
			continue // the listener refuses connections now, on purpose
		}
		wrong, err := a.group.Guard()
		if err != nil {
			s.raise(now, fmt.Sprintf("listener of %s was changed by an instance and cannot be put back: %v", a, err))
		} else if wrong != "" {
			s.raise(now, fmt.Sprintf("%s (put back): an instance did it", wrong), "address", a.String())
		}
	}
	if s.handsOff() {
		return // their listeners are private ones, of which the instance alone has a use
	}
	for _, in := range s.instances {
		s.mend(in, now)
	}
}

// mend makes the listeners of an instance listen, if they do not, and puts them into their groups again. Some programs shut
// their listener down when they end, which harms nobody and is not an alarm. It says whether anything was wrong.
func (s *Shim) mend(in *instance, now time.Time) (mended bool) {
	for a, l := range in.listeners {
		wrong, err := l.was.Resume(l.fd)
		if wrong != steer.NotListening && err == nil {
			var absent string
			absent, err = a.absent(in.number, l)
			wrong = cmp.Or(absent, wrong)
		}
		if wrong != "" && wrong != steer.SmallBacklog && err == nil {
			err = a.group.Put(in.number, l.fd)
			s.ring = nil // the order of the members is another one now, which matters without eBPF
		}
		if err != nil {
			s.raise(now, fmt.Sprintf("%s changed its listener, which cannot be put back: %v", s.options.App.Instance(in.number), err),
				"instance", in.number, "address", a.String())
			continue
		}
		if wrong == "" {
			continue
		}
		mended = true
		// A program that calls listen() for itself says a backlog, which is no alarm unless it says so again and again.
		excused := wrong == steer.SmallBacklog && !in.listened
		in.listened = in.listened || excused
		if b, ok := s.pool.Backend(in.number); ok && b.State == balance.Up && !excused {
			s.raise(now, fmt.Sprintf("%s changed its listener (put back): %s", s.options.App.Instance(in.number), wrong),
				"instance", in.number, "address", a.String())
			continue
		}
		s.log.Debug("listener put back", "instance", in.number, "address", a.String(), "was", wrong)
	}
	return mended
}

// absent says what is wrong with a listener that listens, but is in its slot no more. Without eBPF nobody tells.
func (a *address) absent(slot int, l *listener) (wrong string, err error) {
	if a.ebpf == nil {
		return "", nil
	}
	cookie, err := a.ebpf.Member(slot)
	if err == nil && cookie != l.cookie {
		wrong = "it did not listen for a moment"
	}
	return wrong, err
}

// renew puts the listeners of an instance back to how they were when it joined, as its program has ended: the next one
// shall not find what this one has set.
func (s *Shim) renew(in *instance, now time.Time) {
	if s.handsOff() {
		return
	}
	s.mend(in, now)
	for a, l := range in.listeners {
		differed, err := l.was.Restore(l.fd)
		if err != nil {
			s.log.Warn("put options of listener back, ignoring", "instance", in.number, "address", a.String(), "error", err)
		}
		if differed != "" {
			s.log.Debug("options of listener put back", "instance", in.number, "address", a.String(), "options", differed)
		}
	}
}

// programEnded answers method Ended: the program of an instance has ended, and PID 1 has not begun to poll its listener,
// which it would give up for good if that does not listen (socket_dispatch_io in src/core/socket.c).
func (s *Shim) programEnded(ctx context.Context, r *control.Request) error {
	var p control.Instance
	if err := r.Decode(&p); err != nil {
		return err
	}
	return s.run1(ctx, func() error {
		if in := s.instances[p.Instance]; in != nil {
			s.renew(in, time.Now())
		}
		return nil
	})
}

// acceptAtOnce makes the listeners of an instance hand over connections that have sent nothing yet, until acceptLater: a
// probe sends nothing, and would wait in the kernel where nobody sees it (TCP_DEFER_ACCEPT, tcp(7)). It says whether one of
// them had the option set.
func (s *Shim) acceptAtOnce(in *instance) (deferred bool, err error) {
	for _, l := range in.listeners {
		seconds, err := unix.GetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
		if err != nil {
			return false, fmt.Errorf("look at listener: getsockopt TCP_DEFER_ACCEPT: %w", err)
		}
		if seconds == 0 {
			continue
		}
		if err := unix.SetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 0); err != nil {
			return false, fmt.Errorf("set up listener for a probe: setsockopt TCP_DEFER_ACCEPT: %w", err)
		}
		l.deferred, deferred = seconds, true
	}
	return deferred, nil
}

// acceptLater ends acceptAtOnce.
func (s *Shim) acceptLater(in *instance) {
	for _, l := range in.listeners {
		if l.deferred == 0 {
			continue
		}
		if err := unix.SetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, l.deferred); err != nil {
			s.log.Warn("set TCP_DEFER_ACCEPT again, ignoring", "instance", in.number, "error", err)
		}
		l.deferred = 0
	}
}
