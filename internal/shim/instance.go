package shim

import (
	"context"
	"slices"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/systemd"
)

// instance is one app@N.
type instance struct {
	number  int
	adopted bool // it joined an earlier shim

	service      systemd.UnitState
	serviceKnown bool
	socket       systemd.UnitState
	socketKnown  bool
	socketAsked  int // states of the socket that must still arrive before one is newer than the death of the service

	draining int       // control clients that drain it
	held     time.Time // drained, and PID 1 has not said yet that it stops; until then at most
	failures int       // ends since it was last up
	probed   time.Time // when its readiness was last tried: PID 1 was starting it then
	since    time.Time // of its present state
	listened bool      // its program has made the backlog smaller since
	stall    stall
}

// unwatched says that PID 1 does not poll the instance's listeners, so that it does not see a
// shutdown(2) on them: PID 1 fails a socket unit on which it meets EPOLLHUP (socket_dispatch_io in
// src/core/socket.c). PID 1 polls in state listening, and stops when a connection has come or the
// service runs. It starts again as soon as the service is dead or about to restart
// (socket_trigger_notify). Its signal for the socket may arrive after the one for the service. So
// if the service stays dead the shim asks PID 1; if it will restart the shim assumes that PID 1
// polls.
func (in *instance) unwatched() bool {
	if !in.socketKnown || in.socket.SubState != "running" || !in.serviceKnown {
		return false
	}
	if in.service.AwaitsRestart() {
		return false
	}
	return !in.service.Dead() || in.socketAsked == 0
}

// askForSocket asks PID 1 for the state of the socket, now that the service is dead. A signal with
// an older state may be on its way.
func (s *Shim) askForSocket(in *instance) {
	in.socketAsked = 2
	s.units.Watch(s.options.App.InstanceSocket(in.number))
}

// socketTold handles PID 1's report on the socket of an instance.
func (s *Shim) socketTold(in *instance, u systemd.UnitState) {
	in.socket, in.socketKnown = u, true
	if u.Dead() {
		s.dropGone(in)
		return
	}
	if in.socketAsked > 0 {
		in.socketAsked--
	}
	if in.socketAsked > 0 {
		s.units.Watch(s.options.App.InstanceSocket(in.number))
	}
}

// state is the instance's state as PID 1 tells it, before drains and ejection.
func (in *instance) state() balance.State {
	if !in.serviceKnown {
		return balance.Down
	}
	return in.service.Balance()
}

// starting says that PID 1 has begun to start the instance after the last state that has arrived,
// as signals are late on a busy machine. The probe waits in the queue then: if it were moved,
// another instance would answer it.
func (in *instance) starting() bool { return in.probed.UnixMicro() > in.service.StateChange }

// unitChanged handles PID 1's report on one unit.
func (s *Shim) unitChanged(u systemd.UnitState) {
	unit, ok := s.options.App.ParseUnit(u.Name)
	if !ok {
		return
	}
	if unit.Role == app.RoleSocket {
		s.parkingWatched = u.SubState != "running"
		return
	}
	in := s.instances[unit.Instance]
	if in == nil {
		return // an event that was on its way when the instance was dropped
	}
	switch unit.Role {
	case app.RoleInstance:
		s.serviceChanged(in, u)
	case app.RoleInstanceSocket:
		s.socketTold(in, u)
	}
}

func (s *Shim) serviceChanged(in *instance, u systemd.UnitState) {
	before, known := in.state(), in.serviceKnown
	in.service, in.serviceKnown = u, true
	if u.Dead() {
		s.askForSocket(in)
	}
	now := in.state()
	if before == now && known {
		return
	}
	switch {
	case now == balance.Up:
		in.failures = 0
	case now == balance.Down && before != balance.Draining && known:
		in.failures++
	}
	in.since = time.Now()
	s.activity.last = in.since // an app that is started, reloaded or mended is not idle
	in.stall, in.listened = stall{}, false
	in.held = time.Time{}
	s.channels.StateChanged(in.number, now)
	s.path.StateChanged(in.number)
	if now == balance.Down && !in.starting() {
		s.judge(s.path.Renew(in.number), in.since)
	}
	s.move(in)
	if known || now != balance.Down {
		s.log.Info("instance is "+now.String(), "instance", in.number, "was", before.String())
	}
}

// move gives the pool the state that follows from PID 1's and from drains.
func (s *Shim) move(in *instance) {
	state := in.state()
	if state == balance.Up && (in.draining > 0 || !in.held.IsZero() || s.path.Serves(in.number) != path.Yes) {
		state = balance.Draining
	}
	if err := s.pool.Move(in.number, state, time.Now()); err != nil {
		s.log.Error("move instance, ignoring", "instance", in.number, "error", err)
	}
}

// dropGone drops those of the instances whose socket units have ended. PID 1's signals may be older
// than a listener that has joined since, or late, so the shim asks for the present states. It asks
// for a list of units: to ask for a property of a unit that is gone would load the unit again.
func (s *Shim) dropGone(suspects ...*instance) {
	if len(suspects) == 0 {
		return
	}
	var sockets []string
	for _, in := range suspects {
		sockets = append(sockets, s.options.App.InstanceSocket(in.number))
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	var loaded []systemd.UnitState
	conn, err := systemd.Dial(ctx, s.options.Manager)
	if err == nil {
		defer conn.Close()
		loaded, err = conn.ListUnits(ctx, sockets...)
	}
	if err != nil {
		s.log.Warn("read states of sockets, ignoring", "sockets", sockets, "error", err)
		return
	}
	for i, in := range suspects {
		if !slices.ContainsFunc(loaded, func(u systemd.UnitState) bool { return u.Name == sockets[i] && !u.Dead() }) {
			s.drop(in)
		}
	}
}

// ask reads the state of a unit from PID 1, on a new connection: questions are rare, and a
// connection that is kept would break at each restart of the bus.
func (s *Shim) ask(unit string) (systemd.UnitState, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	conn, err := systemd.Dial(ctx, s.options.Manager)
	if err != nil {
		return systemd.UnitState{}, err
	}
	defer conn.Close()
	return conn.Unit(ctx, unit)
}

// askTimeout bounds a question to PID 1 that the loop waits for. PID 1 answers in well under a
// millisecond; during daemon-reload it does not read, for seconds on hosts with thousands of units.
const askTimeout = 5 * time.Second

// add makes an instance of a number that has joined.
func (s *Shim) add(number int) (*instance, error) {
	if err := s.pool.Add(number, weight(s.options.Weights, number)); err != nil {
		return nil, err
	}
	in := &instance{number: number, since: time.Now()}
	s.instances[number] = in
	s.channels.Join(number)
	return in, nil
}

// adopt takes over an instance that joined an earlier shim.
func (s *Shim) adopt(number int) {
	in, err := s.add(number)
	if err != nil {
		s.log.Warn("adopt instance, ignoring", "instance", number, "error", err)
		s.path.Leave(number)
		return
	}
	in.adopted = true
	s.watch(number)
}

// watch makes PID 1 report changes of the units of an instance.
func (s *Shim) watch(number int) {
	s.units.Watch(s.options.App.Instance(number))
	s.units.Watch(s.options.App.InstanceSocket(number))
}

// join takes over the listeners of an instance. It owns fds, also when it fails.
func (s *Shim) join(number int, fds []int) error {
	joined, err := s.path.Join(number, fds)
	if err != nil || !joined {
		return err
	}
	if s.instances[number] == nil {
		if _, err := s.add(number); err != nil {
			s.path.Leave(number)
			return err
		}
	}
	s.watch(number)
	s.log.Info("instance joined", "instance", number)
	return nil
}

// drop forgets an instance.
func (s *Shim) drop(in *instance) {
	s.pool.Remove(in.number)
	delete(s.instances, in.number)
	s.channels.Leave(in.number)
	if err := s.setRing(time.Now()); err != nil {
		s.log.Error("drop instance, ignoring", "instance", in.number, "error", err)
	}
	s.path.Leave(in.number)
	s.units.Forget(s.options.App.Instance(in.number))
	s.units.Forget(s.options.App.InstanceSocket(in.number))
	for d := range s.drains {
		if d.Instance == in.number {
			s.endDrain(d, control.Drained{})
		}
	}
	s.log.Info("instance left", "instance", in.number)
}
