package shim

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
)

// handle answers control clients; it runs on their goroutines.
func (s *Shim) handle(ctx context.Context, r *control.Request) (any, error) {
	switch r.Method {
	case control.MethodJoin, control.MethodConnect, control.MethodDeliver:
	default:
		closeAll(r.FDs) // of nobody, who need not have sent them
		r.FDs = nil
	}
	switch r.Method {
	case control.MethodJoin:
		return s.handleJoin(ctx, r)
	case control.MethodConnect:
		return s.connect(ctx, r)
	case control.MethodDeliver:
		return struct{}{}, s.deliver(ctx, r)
	case control.MethodDrain:
		return s.drain(ctx, r)
	case control.MethodClose:
		if err := r.Decode(&struct{}{}); err != nil {
			return nil, err
		}
		return s.refusal(), s.run1(ctx, func() error { s.refuse(); return nil })
	case control.MethodProbe:
		return s.probe(ctx, r)
	case control.MethodAccepted:
		return s.accepted(ctx, r)
	case control.MethodListening:
		return s.listening(ctx, r)
	case control.MethodSend:
		return s.send(ctx, r)
	case control.MethodEnded:
		return struct{}{}, s.programEnded(ctx, r)
	case control.MethodSteered:
		return struct{}{}, s.steeredTo(ctx, r)
	case control.MethodConfigure:
		return struct{}{}, s.configure(ctx, r)
	case control.MethodRolling:
		return s.rolling(ctx, r)
	case control.MethodRolled:
		return struct{}{}, s.rolled(ctx, r)
	case control.MethodNote:
		return struct{}{}, s.takeNote(ctx, r)
	case control.MethodHost:
		return s.hostNow(ctx, r)
	case control.MethodDrainHost:
		return s.drainHost(ctx, r)
	case control.MethodHostDrained:
		return s.hostDrained(ctx, r)
	case control.MethodStatus:
		if err := r.Decode(&struct{}{}); err != nil {
			return nil, err
		}
		var status control.Status
		err := s.run1(ctx, func() error { status = s.snapshot(); return nil })
		return status, err
	case control.MethodAddresses:
		if err := r.Decode(&struct{}{}); err != nil {
			return nil, err
		}
		all := control.Addresses{Path: string(s.path())}
		err := s.run1(ctx, func() error {
			for _, a := range s.addresses {
				all.Addresses = append(all.Addresses, a.String())
			}
			return nil
		})
		return all, err
	}
	return nil, &control.Error{Name: control.ErrMethodNotFound, Reason: "no such method: " + r.Method}
}

// Handler is what a control.Server for this shim runs.
func (s *Shim) Handler() control.Handler { return s.handle }

// errEnded is what a client is told whose request came when the shim was about to end, or who was about to leave.
var errEnded = &control.Error{Name: control.ErrEnding, Reason: "the shim ends, or the client has left"}

// run1 runs f where the state is and returns its error.
func (s *Shim) run1(ctx context.Context, f func() error) error {
	var err error
	if !s.do(ctx, func() { err = f() }) {
		return errEnded
	}
	return err
}

func (s *Shim) handleJoin(ctx context.Context, r *control.Request) (any, error) {
	var p control.Instance
	if err := r.Decode(&p); err != nil {
		closeAll(r.FDs)
		return nil, err
	}
	taken := false
	err := s.run1(ctx, func() error { taken = true; return s.join(p.Instance, r.FDs) })
	if !taken {
		closeAll(r.FDs)
	}
	if err != nil && taken {
		err = &control.Error{Name: control.ErrListenerRefused, Reason: err.Error()}
	}
	return struct{}{}, err
}

// refuse closes the port in the kernel; see package lifecycle.
func (s *Shim) refuse() {
	s.closed = true
	for _, a := range s.addresses {
		if err := a.group.Refuse(); err != nil {
			s.log.Error("refuse new connections, ignoring", "address", a.String(), "error", err)
		}
	}
	s.log.Info("new connections are refused, the app stops")
}

// report tells PID 1 what systemctl status shall show, and that the app is ready once an instance may take connections.
func (s *Shim) report(now time.Time) {
	line := s.line(now)
	if !s.ready && len(s.ring) > 0 {
		s.ready = true
		s.told(s.notify.Ready())
		s.log.Info("app is ready", "after", now.Sub(s.started).Round(time.Millisecond).String())
	}
	if line != s.status && s.statusPace.Take(now) { // else the next tick tells
		s.status = line
		s.told(s.notify.Status(line))
	}
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

// word is the state of an instance in a word, for status.
func (s *Shim) word(b balance.Backend) string {
	if b.Stuck {
		return "stuck"
	}
	return b.State.String()
}

func (s *Shim) snapshot() control.Status {
	counts, err := s.count()
	if err != nil {
		s.log.Warn("count connections, ignoring", "error", err)
	}
	status := control.Status{
		App: string(s.options.App), Path: string(s.path()), Reason: s.pathReason(), Strategy: string(s.strategy), Line: s.line(time.Now()),
	}
	for _, a := range s.addresses {
		totals := a.group.Totals()
		waiting, _, err := s.queueOf(a)
		if err != nil {
			s.log.Warn("read parking queue, ignoring", "address", a.String(), "error", err)
		}
		status.Addresses = append(status.Addresses, control.AddressStatus{
			Address: a.String(), Waiting: waiting, Parked: a.group.Steered(0),
			Migrated: totals.Migrated, Refused: totals.Refused, Unplaced: totals.Unplaced,
		})
	}
	for _, b := range s.pool.Backends() {
		in := s.instances[b.ID]
		is := control.InstanceStatus{
			Instance: b.ID, State: s.word(b), PID: in.service.MainPID, Connections: -1, Since: in.since.UnixMicro(),
		}
		if c, ok := counts[b.ID]; ok {
			is.Connections, is.Queued = c.Open-c.Queued, c.Queued
		}
		if s.handsOff() {
			is.Queued = s.handoff.Stat(b.ID).Pending
		}
		for _, a := range s.addresses {
			is.Steered += a.group.Steered(b.ID)
		}
		status.Instances = append(status.Instances, is)
	}
	status.Tampering = s.tampering()
	slices.SortFunc(status.Instances, func(a, b control.InstanceStatus) int { return a.Instance - b.Instance })
	return status
}
