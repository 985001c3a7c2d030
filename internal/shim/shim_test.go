package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/needs"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/shim/steered"
	"github.com/unitgen/unitgen/internal/steer"
	"github.com/unitgen/unitgen/internal/systemd"
)

// bench is a shim around listeners of its own, driven by hand in place of Run.
type bench struct {
	*Shim
	t         *testing.T
	parking   int
	listeners map[int]int // instance to the descriptor that it would have inherited
}

// inherited is what a bench's shim is passed beside its public listener.
type inherited struct {
	stored   []path.Stored
	channels *net.UnixListener
	diag     []int
}

// newBench makes one on the steer path.
func newBench(t *testing.T, o Options) *bench {
	t.Helper()
	return newBenchWith(t, o, inherited{})
}

func newBenchWith(t *testing.T, o Options, in inherited) *bench {
	t.Helper()
	b := prepareBench(t, &o, in)
	p, err := steered.Open(steered.Options{App: o.App, Strategy: o.Strategy, Parking: []int{b.dup(b.parking)}, Diag: in.diag, Store: o.Store, Log: o.Log,
		Cgroup: func(int) (string, error) { return "", errors.New("nobody to ask") }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	o.Path = p
	b.start(o)
	return b
}

// prepareBench fills in what a shim on any path needs.
func prepareBench(t *testing.T, o *Options, in inherited) *bench {
	t.Helper()
	needs.Root(t, "loading a BPF program takes CAP_BPF")
	b := &bench{t: t, listeners: make(map[int]int)}
	b.parking = b.listen(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	o.App, o.Log, o.Notify, o.Channels = "app", slog.New(slog.DiscardHandler), &activation.Notifier{}, in.channels
	o.Store = path.NewStore(o.App, o.Notify, in.stored, o.Log)
	// No manager answers there: states come from the test, as events would bring them.
	o.Units = systemd.NewWatcher(systemd.WatcherOptions{Endpoint: systemd.Endpoint{Private: t.TempDir() + "/none"}})
	t.Cleanup(o.Units.Close)
	return b
}

// start makes the shim.
func (b *bench) start(o Options) {
	b.t.Helper()
	s, err := New(o)
	if err != nil {
		b.t.Fatal(err)
	}
	s.tick = time.NewTimer(time.Hour)
	s.started = time.Now()
	b.Shim = s
}

// dup returns a duplicate, for who takes it over.
func (b *bench) dup(fd int) int {
	b.t.Helper()
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	return dup
}

// listen makes a non-blocking member of the group at address.
func (b *bench) listen(address unix.Sockaddr) int {
	b.t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		b.t.Fatal(err)
	}
	if err := unix.Bind(fd, address); err != nil {
		b.t.Fatal(err)
	}
	if err := unix.Listen(fd, 128); err != nil {
		b.t.Fatal(err)
	}
	return fd
}

func (b *bench) address() unix.Sockaddr {
	sa, err := unix.Getsockname(b.parking)
	if err != nil {
		b.t.Fatal(err)
	}
	return sa
}

// up joins an instance and makes it serve.
func (b *bench) up(number int) {
	b.t.Helper()
	fd := b.listen(b.address())
	b.listeners[number] = fd
	if err := b.join(number, []int{b.dup(fd)}); err != nil {
		b.t.Fatal(err)
	}
	b.socket(number, "running")
	b.service(number, "active", "running")
}

func (b *bench) service(number int, active, sub string) {
	b.t.Helper()
	b.unitChanged(systemd.UnitState{Name: b.options.App.Instance(number), ActiveState: active, SubState: sub})
	b.settled()
}

func (b *bench) socket(number int, sub string) {
	b.t.Helper()
	b.unitChanged(systemd.UnitState{Name: b.options.App.InstanceSocket(number), ActiveState: "active", SubState: sub})
	b.settled()
}

func (b *bench) settled() {
	b.t.Helper()
	if err := b.settle(time.Now()); err != nil {
		b.t.Fatal(err)
	}
}

// connect makes n connections and returns how many each listener has got; key 0 is the parking
// listener.
func (b *bench) connect(n int) map[int]int {
	b.t.Helper()
	b.dial(n)
	return b.accepted()
}

// dial makes n connections that stay open until the test ends.
func (b *bench) dial(n int) {
	b.t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", b.address().(*unix.SockaddrInet4).Port)
	for range n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { conn.Close() })
	}
}

// accepted takes every connection that waits, of all listeners.
func (b *bench) accepted() map[int]int {
	got := make(map[int]int)
	for number, fd := range b.listeners {
		got[number] = acceptAll(b.t, fd)
	}
	if n := acceptAll(b.t, b.parking); n > 0 {
		got[0] = n
	}
	return got
}

func (b *bench) queued(fd int) int {
	b.t.Helper()
	n, _, err := steer.Queue(fd)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func acceptAll(t *testing.T, fd int) int {
	for n := 0; ; n++ {
		conn, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err == unix.EAGAIN {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(conn) })
	}
}

func want(t *testing.T, what string, got, want map[int]int) {
	t.Helper()
	for number := range got {
		if got[number] != want[number] {
			t.Errorf("%s: connections by instance (0 is parking) %v, want %v", what, got, want)
			return
		}
	}
}

func TestInstancesShareEvenlyWhileTheyAreUp(t *testing.T) {
	b := newBench(t, Options{})
	want(t, "no instance", b.connect(3), map[int]int{0: 3})
	b.up(1)
	b.up(2)
	b.up(3)
	want(t, "three instances", b.connect(30), map[int]int{1: 10, 2: 10, 3: 10})
	b.service(2, "deactivating", "stop")
	want(t, "one stops", b.connect(30), map[int]int{1: 15, 3: 15})
	b.service(2, "activating", "start")
	want(t, "one starts", b.connect(30), map[int]int{1: 15, 3: 15})
	b.service(2, "active", "running")
	want(t, "all again", b.connect(30), map[int]int{1: 10, 2: 10, 3: 10})
}

func TestParkedConnectionsGoToTheFirstInstance(t *testing.T) {
	b := newBench(t, Options{})
	b.dial(5)
	b.up(1)
	if n := b.queued(b.parking); n != 5 {
		t.Fatalf("%d connections left while PID 1 polls the parking listener, want all 5 there", n)
	}
	b.unitChanged(systemd.UnitState{Name: "app.socket", ActiveState: "active", SubState: "running"})
	b.settled()
	want(t, "after PID 1 let go", b.accepted(), map[int]int{1: 5})
}

func TestQueueOfADeadInstanceMovesOnlyWhilePID1DoesNotPollIt(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	b.up(2)
	b.dial(8)
	stay := func(when string) {
		t.Helper()
		if n := b.queued(b.listeners[1]); n != 4 {
			t.Fatalf("%d connections at the dead instance %s, want 4", n, when)
		}
	}
	for _, state := range [][2]string{{"activating", "auto-restart"}, {"inactive", "dead-before-auto-restart"}, {"failed", "failed"}} {
		b.service(1, state[0], state[1]) // PID 1 polls from then on, and its word on the socket may come later
		stay("in state " + state[1])
	}
	b.socket(1, "running")
	stay("while an older word on its socket may be on its way")
	b.socket(1, "listening")
	stay("while PID 1 polls")
	b.service(1, "deactivating", "stop-post")
	stay("while PID 1 polls")
	b.socket(1, "running")
	want(t, "after PID 1 let go", b.accepted(), map[int]int{2: 8})
}

// An instance that stays down keeps no connection: those that came before the shim knew of its end
// go on too.
func TestQueueOfAnInstanceThatStaysDown(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	b.up(2)
	b.dial(8)
	b.service(1, "failed", "failed")
	b.socket(1, "running")
	b.socket(1, "running")
	want(t, "when PID 1 has told that it does not poll", b.accepted(), map[int]int{2: 8})
}

// ticks returns a function that lets the time go on to the next look.
func (b *bench) ticks() (tick func(), skip func(time.Duration)) {
	now := time.Now()
	tick = func() {
		b.t.Helper()
		now = now.Add(tickBusy)
		if err := b.look(now); err != nil {
			b.t.Fatal(err)
		}
		if err := b.settle(now); err != nil {
			b.t.Fatal(err)
		}
	}
	return tick, func(d time.Duration) { now = now.Add(d); tick() }
}

// hang lets instance 1 accept nothing until it is taken off the ring, and instance 2 all.
func (b *bench) hang(tick func()) {
	b.t.Helper()
	for range int(stuckAfter/tickBusy) + 1 {
		b.dial(2)
		acceptAll(b.t, b.listeners[2])
		tick()
	}
	if one, _ := b.pool.Backend(1); !one.Stuck {
		b.t.Fatal("instance 1 accepts nothing and is on the ring")
	}
}

func TestStuckInstanceIsEjectedAndGetsAnotherChance(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	b.up(2)
	tick, skip := b.ticks()
	tick()
	b.hang(tick)
	if n := b.queued(b.listeners[1]); n != 0 {
		t.Errorf("%d connections wait at the stuck instance, want 0", n)
	}
	b.accepted()
	want(t, "while it is off", b.connect(4), map[int]int{2: 4})
	skip(ejectFirst)
	if one, _ := b.pool.Backend(1); one.Stuck {
		t.Error("instance 1 is still off the ring after its time")
	}
	want(t, "after its time", b.connect(4), map[int]int{1: 2, 2: 2})
}

// An instance that hangs on is tried less and less often, also when nothing comes just after it got
// another chance.
func TestStuckInstanceIsTriedLessOften(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	b.up(2)
	tick, skip := b.ticks()
	for _, off := range []time.Duration{ejectFirst, 2 * ejectFirst, 4 * ejectFirst} {
		tick()
		b.hang(tick)
		if got := b.instances[1].stall.back; got != off {
			t.Errorf("it is off the ring for %s, want %s", got, off)
		}
		b.accepted()
		skip(off)
		if one, _ := b.pool.Backend(1); one.Stuck {
			t.Fatal("instance 1 is still off the ring after its time")
		}
	}
}

func TestNobodyIsEjectedWhenAllAreBusy(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	b.up(2)
	now := time.Now()
	for range 3 * int(stuckAfter/tickBusy) {
		b.dial(2)
		now = now.Add(tickBusy)
		if err := b.look(now); err != nil {
			t.Fatal(err)
		}
	}
	for _, in := range b.pool.Backends() {
		if in.Stuck {
			t.Errorf("instance %d was ejected though no other keeps up", in.ID)
		}
	}
}

// Instances that all hang are up, as nothing can be done for what waits; but the status line says
// so, until they accept again.
func TestStatusSaysThatNobodyAccepts(t *testing.T) {
	b := newBench(t, Options{})
	b.up(1)
	b.up(2)
	tick, skip := b.ticks()
	tick()
	for range int(stuckAfter/tickBusy) + 1 {
		b.dial(2)
		tick()
	}
	if line := b.line(time.Now()); !strings.HasPrefix(line, "2/2 instances up") || strings.Contains(line, "accept") {
		t.Errorf("after a burst: %q", line)
	}
	skip(silentAfter)
	if line := b.line(time.Now()); !strings.HasPrefix(line, "2/2 instances up, none of which accepts") {
		t.Errorf("after %s: %q", silentAfter, line)
	}
	acceptAll(t, b.listeners[2])
	tick()
	if line := b.line(time.Now()); strings.Contains(line, "none of which") {
		t.Errorf("while one accepts: %q", line)
	}
	acceptAll(t, b.listeners[1])
	tick()
	if line := b.line(time.Now()); strings.Contains(line, "accept") {
		t.Errorf("when all accept: %q", line)
	}
}

func TestStartFailsWhenEveryInstanceKeepsFailing(t *testing.T) {
	b := newBench(t, Options{Settings: control.Settings{StartTimeout: time.Hour}})
	b.up(1)
	b.instances[1].serviceKnown = false
	b.Shim.ready = false
	if err := b.pool.Move(1, balance.Down, time.Now()); err != nil {
		t.Fatal(err)
	}
	b.setRing(time.Now())
	for i := range failuresBeforeReady {
		if err := b.lookStart(time.Now()); err != nil {
			t.Fatalf("gave up after %d failures: %v", i, err)
		}
		b.serviceChanged(b.instances[1], systemd.UnitState{ActiveState: "activating", SubState: "start"})
		b.serviceChanged(b.instances[1], systemd.UnitState{ActiveState: "activating", SubState: "auto-restart", Result: "exit-code", ExecMainCode: 1, ExecMainStatus: 3})
	}
	err := b.lookStart(time.Now())
	if err == nil || !strings.Contains(err.Error(), "app@1: exit status 3") {
		t.Errorf("error %v, want one that names the instance and its exit status", err)
	}
}

func TestStartFailsWhenNothingIsReadyInTime(t *testing.T) {
	b := newBench(t, Options{Settings: control.Settings{StartTimeout: time.Second}})
	err := b.lookStart(b.started.Add(time.Second + startGrace))
	if err == nil || !strings.Contains(err.Error(), "no instance is enabled (systemctl enable app@1.service)") {
		t.Errorf("error %v, want the command that enables an instance", err)
	}
}

func TestDrainTakesOffTheRingAtOnceAndEndsByTimeOut(t *testing.T) {
	b := newBench(t, Options{Settings: control.Settings{DrainTimeout: time.Second}})
	b.up(1)
	b.up(2)
	d := b.beginDrain(control.DrainParameters{Instance: 1})
	want(t, "while 1 drains", b.connect(4), map[int]int{2: 4})
	b.countDrains(time.Now()) // nothing to count with: the time-out decides
	select {
	case got := <-d.done:
		t.Fatalf("drain ended early: %+v", got)
	default:
	}
	d.deadline = time.Now()
	b.countDrains(time.Now())
	if got := <-d.done; !got.TimedOut {
		t.Errorf("drain ended with %+v, want a time-out", got)
	}
	b.forgetDrain(d)
	b.settled()
	want(t, "drained, not yet stopped", b.connect(4), map[int]int{2: 4})
	b.endHolds(time.Now().Add(2 * drainHold))
	b.settled()
	want(t, "drained, and no word from systemd", b.connect(4), map[int]int{2: 4})
	b.endHold(b.instances[1], b.instances[1].service)
	b.settled()
	want(t, "drained and never stopped", b.connect(4), map[int]int{1: 2, 2: 2})
}

// Nothing to count with, so all that is waited for is what the program has not accepted.
func TestGracefulDrainEndsWhenNothingWaitsToBeAccepted(t *testing.T) {
	b := newBench(t, Options{Settings: control.Settings{DrainTimeout: time.Hour}})
	b.up(1)
	b.up(2)
	b.dial(2) // one waits at instance 1
	d := b.beginDrain(control.DrainParameters{Instance: 1, Graceful: true, Settle: time.Minute})
	for _, step := range []struct {
		name   string
		change func()
		ended  bool
	}{
		{"a connection waits", func() { d.began = d.began.Add(-time.Hour) }, false},
		{"it is accepted, and time is not up", func() { acceptAll(t, b.listeners[1]); d.began = time.Now() }, false},
		{"time is up", func() { d.began = d.began.Add(-time.Minute) }, true},
	} {
		step.change()
		b.countDrains(time.Now())
		if ended := len(d.done) > 0; ended != step.ended {
			t.Errorf("%s: the drain has ended: %v", step.name, ended)
		}
	}
}

func TestJoinRefusesWhatIsNotAListenerOfTheApp(t *testing.T) {
	b := newBench(t, Options{})
	other := b.listen(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	for what, fd := range map[string]int{"another port": other, "not a socket": int(os.Stdin.Fd())} {
		dup, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.join(1, []int{dup}); err == nil {
			t.Errorf("%s: joined", what)
		}
		if _, err := unix.FcntlInt(uintptr(dup), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("%s: descriptor is still open", what)
		}
	}
	if len(b.instances) != 0 {
		t.Errorf("%d instances after refused joins", len(b.instances))
	}
}

func TestStatesFollowPID1(t *testing.T) {
	for _, c := range []struct {
		active, sub string
		want        balance.State
	}{
		{"active", "running", balance.Up},
		{"reloading", "reload", balance.Up},
		{"activating", "start", balance.Starting},
		{"activating", "start-post", balance.Starting},
		{"activating", "auto-restart", balance.Down},
		{"activating", "auto-restart-queued", balance.Down},
		{"deactivating", "stop", balance.Draining},
		{"deactivating", "stop-sigterm", balance.Draining},
		{"deactivating", "stop-post", balance.Down},
		{"inactive", "dead", balance.Down},
		{"failed", "failed", balance.Down},
		{"maintenance", "cleaning", balance.Down},
	} {
		in := &instance{}
		in.service, in.serviceKnown = systemd.UnitState{ActiveState: c.active, SubState: c.sub}, true
		if got := in.state(); got != c.want {
			t.Errorf("%s/%s is %v, want %v", c.active, c.sub, got, c.want)
		}
	}
}

func TestRequestsEndWithTheirContext(t *testing.T) {
	s := &Shim{requests: make(chan func()), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s.do(ctx, func() { t.Error("ran") }) {
		t.Error("a request was run that nobody waits for")
	}
	close(s.ended)
	if s.do(t.Context(), func() { t.Error("ran") }) {
		t.Error("a request was run though nobody owns the state any more")
	}
}
