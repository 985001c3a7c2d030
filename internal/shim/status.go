package shim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/sock"
)

// handle answers control clients; it runs on their goroutines.
func (s *Shim) handle(ctx context.Context, r *control.Request) (any, error) {
	answer, ok := s.methods()[r.Method]
	if !ok {
		return s.path.Handle(ctx, s, r)
	}
	if r.Method != control.MethodJoin {
		sock.CloseAll(r.FDs) // nobody who calls the other methods sends any
		r.FDs = nil
	}
	return answer(ctx, r)
}

// methods are those that do not depend on the path.
func (s *Shim) methods() map[string]control.Handler {
	return map[string]control.Handler{
		control.MethodJoin:        s.handleJoin,
		control.MethodDrain:       s.drain,
		control.MethodClose:       s.handleClose,
		control.MethodListening:   s.listening,
		control.MethodSend:        s.channels.Send,
		control.MethodEnded:       empty(s.programEnded),
		control.MethodSteered:     empty(s.steeredTo),
		control.MethodConfigure:   empty(s.configure),
		control.MethodRolling:     s.rolling,
		control.MethodRolled:      empty(s.rolled),
		control.MethodNote:        empty(s.takeNote),
		control.MethodAddresses:   s.handleAddresses,
		control.MethodHost:        answers(s.hostNow),
		control.MethodDrainHost:   answers(s.drainHost),
		control.MethodHostDrained: answers(s.hostDrained),
		control.MethodStatus:      s.handleStatus,
	}
}

// answers makes a Handler of a method with an answer of type T.
func answers[T any](f func(context.Context, *control.Request) (T, error)) control.Handler {
	return func(ctx context.Context, r *control.Request) (any, error) { return f(ctx, r) }
}

// empty makes a Handler of a method that has nothing to answer.
func empty(f func(context.Context, *control.Request) error) control.Handler {
	return func(ctx context.Context, r *control.Request) (any, error) { return struct{}{}, f(ctx, r) }
}

func (s *Shim) handleAddresses(ctx context.Context, r *control.Request) (any, error) {
	if err := r.Decode(&struct{}{}); err != nil {
		return nil, err
	}
	var all control.Addresses
	err := s.run1(ctx, func() error {
		is := s.path.Describe()
		all.Path = string(is.Path)
		for _, a := range is.Addresses {
			all.Addresses = append(all.Addresses, a.Address)
		}
		return nil
	})
	return all, err
}

func (s *Shim) handleStatus(ctx context.Context, r *control.Request) (any, error) {
	if err := r.Decode(&struct{}{}); err != nil {
		return nil, err
	}
	var status control.Status
	err := s.run1(ctx, func() error { status = s.snapshot(); return nil })
	return status, err
}

// Handler is what a control.Server for this shim runs.
func (s *Shim) Handler() control.Handler { return s.handle }

// run1 runs f where the state is and returns its error.
func (s *Shim) run1(ctx context.Context, f func() error) error {
	var err error
	if !s.do(ctx, func() { err = f() }) {
		return path.ErrEnded
	}
	return err
}

// Do is of path.Loop.
func (s *Shim) Do(ctx context.Context, f func() error) error { return s.run1(ctx, f) }

// Probed is of path.Loop.
func (s *Shim) Probed(number int, at time.Time) {
	if in := s.instances[number]; in != nil {
		in.probed = at
	}
}

// Harmed is of path.Loop.
func (s *Shim) Harmed(harms []path.Harm) { s.judge(harms, time.Now()) }

func (s *Shim) handleJoin(ctx context.Context, r *control.Request) (any, error) {
	var p control.Instance
	if err := r.Decode(&p); err != nil {
		sock.CloseAll(r.FDs)
		return nil, err
	}
	taken := false
	err := s.run1(ctx, func() error { taken = true; return s.join(p.Instance, r.FDs) })
	if !taken {
		sock.CloseAll(r.FDs)
	}
	if err != nil && taken {
		err = &control.Error{Name: control.ErrListenerRefused, Reason: err.Error()}
	}
	return struct{}{}, err
}

// handleClose answers method Close: the port refuses newcomers. Beside the answer are the listeners
// that the caller has to close with root's rights; see package lifecycle.
func (s *Shim) handleClose(ctx context.Context, r *control.Request) (any, error) {
	if err := r.Decode(&struct{}{}); err != nil {
		return nil, err
	}
	answer := control.WithFDs{Result: struct{}{}}
	err := s.run1(ctx, func() error {
		s.closed = true
		answer.FDs = s.path.Refuse()
		s.log.Info("new connections are refused, the app stops")
		return nil
	})
	return answer, err
}

// report tells PID 1 what systemctl status shall show, and that the app is ready once an instance
// may take connections.
func (s *Shim) report(now time.Time) {
	line := s.line(now)
	if !s.ready && len(s.ring) > 0 {
		s.ready = true
		s.told(s.notify.Ready())
		s.log.Info("app is ready", "after", now.Sub(s.started).Round(time.Millisecond).String())
	}
	if line != s.status && s.statusPace.Take(now) { // else the next tick tells
		s.tellStatus(line)
	}
}

func (s *Shim) tellStatus(line string) {
	s.status = line
	s.told(s.notify.Status(line))
}

// line says it in one line: "4/4 instances up, 123 connections".
func (s *Shim) line(now time.Time) string {
	up := 0
	var not, silent []string
	for _, b := range s.pool.Backends() {
		in := s.instances[b.ID]
		switch {
		case !b.InRing():
			not = append(not, fmt.Sprintf("%s@%d %s", s.options.App, b.ID, s.word(b)))
		case in != nil && in.stall.silent:
			silent = append(silent, fmt.Sprintf("%s@%d accepts nothing", s.options.App, b.ID))
			fallthrough
		default:
			up++
		}
	}
	line := fmt.Sprintf("%d/%d instances up", up, len(s.instances))
	if len(silent) == up && up > 0 {
		line += ", none of which accepts"
	} else {
		not = append(not, silent...)
	}
	switch {
	case !s.activity.counted:
	case s.activity.open == 1:
		line += ", 1 connection"
	default:
		line += fmt.Sprintf(", %d connections", s.activity.open)
	}
	if s.note != "" {
		line = s.note + "; " + line
	}
	const shown = 4 // PID 1 keeps the line in memory, and a terminal has one line for it
	if len(not) > shown {
		not = append(not[:shown], fmt.Sprintf("and %d more", len(not)-shown))
	}
	if len(not) > 0 {
		line += "; " + strings.Join(not, ", ")
	}
	line = s.hostNote() + line
	if alarm := s.alarm(now); alarm != "" {
		line += "; " + alarm
	}
	return line
}

// word is the state of an instance, for status.
func (s *Shim) word(b balance.Backend) string {
	if b.Stuck {
		return "stuck"
	}
	return b.State.String()
}

func (s *Shim) snapshot() control.Status {
	now := time.Now()
	traffic, err := s.path.Count(now)
	if err != nil {
		s.log.Warn("count connections, ignoring", "error", err)
	}
	is := s.path.Describe()
	status := control.Status{
		App: string(s.options.App), Path: string(is.Path), Reason: is.Reason, Strategy: string(is.Strategy), Line: s.line(now),
		Addresses: is.Addresses, Tampering: s.tampering(),
	}
	for _, b := range s.pool.Backends() {
		in, t := s.instances[b.ID], traffic[b.ID]
		one := control.InstanceStatus{
			Instance: b.ID, State: s.word(b), PID: in.service.MainPID, Connections: -1, Queued: t.Waiting, Steered: t.Given,
			Since: in.since.UnixMicro(),
		}
		if in.service.Name != "" { // PID 1 has said something of it
			restarts := in.service.NRestarts
			one.Restarts = &restarts
		}
		if t.Counted {
			one.Connections = t.Accepted
		}
		status.Instances = append(status.Instances, one)
	}
	slices.SortFunc(status.Instances, func(a, b control.InstanceStatus) int { return a.Instance - b.Instance })
	return status
}
