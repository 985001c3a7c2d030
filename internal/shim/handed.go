package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/balance"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/sock"
	"github.com/unitgen/unitgen/internal/sockdiag"
	"github.com/unitgen/unitgen/internal/steer"
)

// storedHanded names the channel of an instance in the FD store; its number follows.
const storedHanded = "handoff@"

// handed is the group of an address on the handoff path: all addresses share one dispatcher, and an instance has no
// listener of its own that anybody could steer to.
type handed struct {
	s   *Shim
	fd  int            // the public listener
	was steer.Snapshot // how it was; zero for a unix socket
}

func (h *handed) Put(int, int) error           { return nil }
func (h *handed) Remove(int) error             { return nil }
func (h *handed) Rescue(int, int) (int, error) { return 0, nil } // what waits was never anybody's
func (h *handed) Probe(int, uint16) error      { return errors.ErrUnsupported }
func (h *handed) EndProbe() error              { return nil }
func (h *handed) Totals() steer.Totals         { return steer.Totals{} }
func (h *handed) Close() error                 { return nil }

// Guard puts the public listener back, which every instance has too: one of them may have shut it down or changed its
// options. A unix socket that was shut down stays so: the kernel has no way back (unix_listen in net/unix/af_unix.c).
func (h *handed) Guard() (wrong string, err error) {
	if h.was.Zero() {
		return "", h.stillOpen()
	}
	wrong, err = h.was.Resume(h.fd)
	if err != nil {
		return "", err
	}
	differed, err := h.was.Restore(h.fd)
	if wrong == "" && differed != "" {
		wrong = differed + " changed"
	}
	if wrong != "" {
		wrong = "the public listener was tampered with: " + wrong
	}
	return wrong, err
}

// stillOpen fails for a unix socket that was shut down.
func (h *handed) stillOpen() error {
	poll := []unix.PollFd{{Fd: int32(h.fd), Events: unix.POLLRDHUP}}
	if _, err := unix.Poll(poll, 0); err != nil && err != unix.EINTR {
		return fmt.Errorf("look at public listener: %w", os.NewSyscallError("poll", err))
	}
	if poll[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0 {
		return fmt.Errorf("it was shut down and refuses everybody until systemctl restart %s", h.s.options.App.Socket())
	}
	return nil
}

// SetRing gives the dispatcher the ring, with the strategy that is in force.
func (h *handed) SetRing(ring []uint16) error {
	h.s.handoff.SetRing(balance.Strategy(h.s.strategy), ring)
	return nil
}

// Steered counts what was handed to an instance, once for all addresses.
func (h *handed) Steered(slot int) uint64 {
	if h.s.addresses[0].group != h {
		return 0
	}
	return h.s.handoff.Stat(slot).Given
}

// Refuse is left to who asks for it, by root and with the listeners (see refusal): it takes privileges.
func (h *handed) Refuse() error { return nil }

// Admit undoes what handoff.Refuse did for an earlier shim.
func (h *handed) Admit() error { return handoff.Admit(h.fd) }

// refusal is the answer of method Close: the listeners that the caller closes to who comes, none on the steer path.
func (s *Shim) refusal() any {
	if !s.handsOff() {
		return struct{}{}
	}
	answer := control.WithFDs{Result: struct{}{}}
	for _, a := range s.addresses {
		answer.FDs = append(answer.FDs, a.parking)
	}
	return answer
}

func (s *Shim) handsOff() bool { return s.options.Path == app.PathHandoff }

// openHanded takes a public listener for the handoff path.
func (s *Shim) openHanded(fd int) (*address, error) {
	group := &handed{s: s, fd: fd}
	a := &address{parking: fd, group: group}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("take public listener: %w", os.NewSyscallError("getsockname", err))
	}
	switch name := name.(type) {
	case *unix.SockaddrUnix:
		a.unix = name.Name
		var stat unix.Stat_t
		if err := unix.Fstat(fd, &stat); err != nil {
			return nil, fmt.Errorf("take public listener: %w", os.NewSyscallError("fstat", err))
		}
		a.inode = uint32(stat.Ino)
	default:
		var ok bool
		if a.Address, ok = sock.AddrPort(name); !ok {
			return nil, fmt.Errorf("take public listener: address is %T, neither IP nor unix", name)
		}
	}
	// The instances accept from it too: the unit has NonBlocking=yes, so that this changes nothing.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("take public listener: %w", os.NewSyscallError("fcntl", err))
	}
	if err := a.group.Admit(); err != nil {
		// A shim before was killed while the app stopped, and this one has not the right that closing the port took.
		s.log.Error("the port stays closed until its socket unit is restarted", "address", a.String(), "error", err)
	}
	if a.unix != "" {
		return a, nil
	}
	if group.was, err = steer.TakeSnapshot(fd); err == nil {
		err = steer.Lock(fd)
	}
	if err != nil {
		return nil, fmt.Errorf("take public listener: %w", err)
	}
	return a, nil
}

// startHanding makes the dispatcher of the addresses.
func (s *Shim) startHanding() (err error) {
	var listeners []int
	for _, a := range s.addresses {
		listeners = append(listeners, a.parking)
	}
	s.handoff, err = handoff.New(handoff.Options{
		Listeners: listeners, Receivers: s.receives(), Waiting: s.waitingAt, Log: s.log,
		Changed: func() {
			select {
			case s.handedChanged <- struct{}{}:
			default: // a look is due already
			}
		},
	})
	if err == nil {
		s.handoff.Limit(s.options.MaxConnections)
	}
	return err
}

// waitingAt is queueOf for a listener.
func (s *Shim) waitingAt(fd int) (n int, exact bool, err error) {
	for _, a := range s.addresses {
		if a.parking == fd {
			return s.queueOf(a)
		}
	}
	return 0, false, errors.New("no such listener")
}

// queueOf is how many connections wait at the public listener of a. Where the kernel does not tell, which is of unix
// sockets without app-diag.socket, it is whether there are any.
func (s *Shim) queueOf(a *address) (n int, exact bool, err error) {
	if a.unix == "" {
		n, err = a.queue(a.parking)
		return n, true, err
	}
	if s.counter.conn != nil {
		if n, err = s.counter.conn.UnixQueue(a.inode); err == nil {
			return n, true, nil
		}
		s.log.Debug("read queue of unix socket, ignoring", "address", a.String(), "error", err)
	}
	poll := []unix.PollFd{{Fd: int32(a.parking), Events: unix.POLLIN | unix.POLLRDHUP}}
	n, err = unix.Poll(poll, 0)
	if poll[0].Revents&unix.POLLRDHUP != 0 {
		n = 0 // it was shut down: see Guard
	}
	return n, false, err
}

// matchHanded takes the private listener of an instance, which nobody here connects to: it stands for the instance.
func (s *Shim) matchHanded(fds []int) (map[*address]*listener, error) {
	if len(fds) != 1 {
		return nil, fmt.Errorf("%d listeners, want the one for the handoff path", len(fds))
	}
	for option, want := range map[int]int{unix.SO_DOMAIN: unix.AF_UNIX, unix.SO_TYPE: unix.SOCK_SEQPACKET, unix.SO_ACCEPTCONN: 1} {
		if got, err := unix.GetsockoptInt(fds[0], unix.SOL_SOCKET, option); err != nil || got != want {
			return nil, errors.Join(errors.New("listener is not of the handoff path (ListenSequentialPacket=)"), err)
		}
	}
	cookie, err := sock.Cookie(fds[0])
	if err != nil {
		return nil, err
	}
	return map[*address]*listener{s.addresses[0]: {fd: fds[0], cookie: cookie}}, nil
}

// connect answers method Connect: the descriptor beside it is a new channel to an instance that starts. It answers when
// PID 1 has a duplicate, so that a shim that is killed does not take the instance's way to get connections with it.
func (s *Shim) connect(ctx context.Context, r *control.Request) (any, error) {
	var p control.Instance
	err := r.Decode(&p)
	if err == nil && len(r.FDs) != 1 {
		err = &control.Error{Name: control.ErrInvalid, Reason: fmt.Sprintf("%d descriptors, want one", len(r.FDs))}
	}
	if err != nil {
		closeAll(r.FDs)
		return nil, err
	}
	taken := false
	err = s.run1(ctx, func() error { taken = true; return s.attachHanded(p.Instance, r.FDs[0]) })
	if !taken {
		closeAll(r.FDs)
	}
	if err == nil {
		err = s.notify.Barrier(ctx)
	}
	return struct{}{}, err
}

// attachHanded owns channel.
func (s *Shim) attachHanded(number, channel int) error {
	switch {
	case !s.handsOff():
		unix.Close(channel)
		return &control.Error{Name: control.ErrUnsupported, Reason: "the app is on the steer path (systemctl restart " + string(s.options.App) + ")"}
	case s.instances[number] == nil:
		unix.Close(channel)
		return &control.Error{Name: control.ErrNoSuchInstance, Reason: fmt.Sprintf("instance %d has not joined", number)}
	}
	err := s.notify.RemoveStored(handedStoreName(number))
	if err == nil {
		err = s.notify.StoreFiles(handedStoreName(number), channel)
	}
	if err != nil {
		unix.Close(channel)
		return err
	}
	return s.handoff.Attach(number, channel)
}

// adoptHanded takes the channels that an earlier shim stored out of stored, and gives the instances theirs back.
func (s *Shim) adoptHanded(channels map[int]int) {
	for number, fd := range channels {
		if s.instances[number] == nil {
			unix.Close(fd)
			continue
		}
		if err := s.handoff.Attach(number, fd); err != nil {
			s.log.Warn("adopt channel, ignoring", "instance", number, "error", err)
		}
	}
}

func takeHanded(stored map[string][]int) map[int]int {
	channels := make(map[int]int)
	for name, fds := range stored {
		number, ok := app.ParseInstance(strings.TrimPrefix(name, storedHanded))
		if !ok || !strings.HasPrefix(name, storedHanded) {
			continue
		}
		// Two, where a shim was killed between the removal of one and the word that it is removed: the last to come is not known.
		closeAll(fds[1:])
		channels[number] = fds[0]
		delete(stored, name)
	}
	return channels
}

// detachHanded ends the channel that came by an instance's listener, here and in PID 1's store. That of a Node process did not,
// and ends with the process.
func (s *Shim) detachHanded(number int) {
	if !s.handsOff() || s.receives() {
		return
	}
	s.handoff.Detach(number)
	if err := s.notify.RemoveStored(handedStoreName(number)); err != nil {
		s.log.Warn("remove stored channel, ignoring", "instance", number, "error", err)
	}
}

func handedStoreName(number int) string { return storedHanded + strconv.Itoa(number) }

// handedNews follows up on what instances have said.
func (s *Shim) handedNews() {
	close(s.nodes.changed)
	s.nodes.changed = make(chan struct{})
	s.countDrains()
}

// countHanded is count on the handoff path: the instances tell.
func (s *Shim) countHanded() map[int]sockdiag.Stat {
	counts := make(map[int]sockdiag.Stat)
	for number := range s.instances {
		st := s.handoff.Stat(number)
		counts[number] = sockdiag.Stat{Open: st.Open, Busy: st.Busy}
	}
	return counts
}

// drainHanded takes a drain further: it ends when nothing was ordered of the instance that it has not answered, and by its
// own word no connection of it is in the middle of something, or it finishes those by itself (control.DrainParameters.Graceful).
func (s *Shim) drainHanded(d *drainWait, now time.Time) {
	st := s.handoff.Stat(d.Instance)
	answered := st.Asked > d.asked
	if in := s.instances[d.Instance]; s.attached(in) && !now.After(d.deadline) {
		quiet := st.Pending == 0 && (st.Open == 0 || answered && st.Busy == 0)
		s.drainNode(d, in, traffic{open: st.Open, known: true, quiet: quiet}, now)
		return
	}
	finishes := d.Graceful && now.Sub(d.began) >= d.Settle
	switch {
	case st.Pending == 0 && (st.Open == 0 || answered && (st.Busy == 0 || finishes)):
		s.endDrain(d, control.Drained{Open: st.Open})
	case now.After(d.deadline):
		s.outOfTime(d, control.Drained{Open: st.Open, Busy: st.Busy})
	}
}

// askHanded has an instance that drains tell anew what it has, if it has answered the last time.
func (s *Shim) askHanded() {
	for d := range s.drains {
		if st := s.handoff.Stat(d.Instance); st.Asked > d.asked {
			d.asked = st.Asked
			s.handoff.Ask(d.Instance)
		}
	}
}

// adoptLimit is how long a new shim waits for the word of instances that it has adopted, which takes well under a
// millisecond of one that does not hang and gets a processor: without it a source would go to its second best, and counts
// be wrong.
const adoptLimit = 5 * time.Second

// waitingForWord says whether an instance that is up has not said yet what it has.
func (s *Shim) waitingForWord(in *instance) bool {
	return s.handsOff() && in.state() == balance.Up && !s.handoff.Stat(in.number).Ready && time.Since(s.started) < adoptLimit
}

// stalledHanded says whether an instance has left orders lying for too long.
func (s *Shim) stalledHanded(in *instance) bool {
	st := s.handoff.Stat(in.number)
	in.stall.queued = st.Pending
	if st.Pending == 0 {
		in.stall.back = 0
	}
	return st.Waits >= stuckAfter*tickBusy
}

// deliver answers method Deliver: the descriptor beside it is given to one instance as a connection, on the ring or not.
func (s *Shim) deliver(ctx context.Context, r *control.Request) error {
	var p control.Instance
	err := r.Decode(&p)
	if err == nil && (len(r.FDs) != 1 || !s.handsOff()) {
		err = &control.Error{Name: control.ErrInvalid, Reason: "one descriptor can be delivered, on the handoff path"}
	}
	if err == nil {
		err = os.NewSyscallError("fcntl", unix.SetNonblock(r.FDs[0], true))
	}
	if err != nil {
		closeAll(r.FDs)
		return err
	}
	if !s.handoff.Give(p.Instance, r.FDs[0]) {
		return &control.Error{Name: control.ErrNoSuchInstance, Reason: fmt.Sprintf("instance %d receives no connections", p.Instance)}
	}
	return nil
}

// handedReason says why the app is on the handoff path.
func (s *Shim) handedReason() string {
	for _, a := range s.addresses {
		if a.unix != "" {
			return "unix sockets cannot be steered"
		}
	}
	return "asked for"
}
