package handoff

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The channels of Receivers are in a separate epoll set, which is in the loop's set. Waking up for
// every message costs more than the message, so under load the loop does not poll Receivers. It
// reads their messages before it hands out the next connection, or after pollPause.

// pollPause is how long a message may stay unread, in milliseconds. The loop does not pause while a
// connection waits for a message. The pause delays the closing of the balancer's copies of
// connections, and other requests of programs.
const pollPause = 1

// openChannels makes the set of channels.
func (d *Dispatcher) openChannels() (err error) {
	if d.channels, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	d.spoken = make([]unix.EpollEvent, maxEvents)
	return watch(d.epoll, unix.EPOLL_CTL_ADD, d.channels, unix.EPOLLIN, channelsEvent, 0)
}

// hearAllLocked reads the messages of Receivers, and reports whether there were any.
func (d *Dispatcher) hearAllLocked() (heard bool) {
	if d.channels < 0 {
		return false
	}
	n, err := unix.EpollWait(d.channels, d.spoken, 0)
	if err != nil && !errors.Is(err, unix.EINTR) {
		d.options.Log.Error("hear instances, ignoring", "error", os.NewSyscallError("epoll_wait", err))
	}
	for _, e := range d.spoken[:max(n, 0)] {
		if b := d.backends[int(e.Fd)]; b != nil && b.attached == uint32(e.Pad) {
			d.hearReceiverLocked(b)
		}
	}
	return n > 0
}

// attendLocked is called after the loop has handled some events, or none if its wait timed out. It
// returns how long the loop may wait for the next event, in milliseconds, or -1 without limit, and
// sets whether the loop polls Receivers meanwhile.
func (d *Dispatcher) attendLocked(events int) (timeout int) {
	if d.channels < 0 {
		return -1
	}
	heard := events == 0 && d.hearAllLocked()
	paused := (events > 0 || heard) && d.unansweredLocked() && !d.behindLocked()
	if paused != d.paused {
		var which uint32
		if !paused {
			which = unix.EPOLLIN
		}
		if err := watch(d.epoll, unix.EPOLL_CTL_MOD, d.channels, which, channelsEvent, 0); err != nil {
			d.options.Log.Error("hear instances, ignoring", "error", err)
		}
		d.paused = paused
	}
	if paused {
		return pollPause
	}
	return -1
}

// unansweredLocked reports whether an instance has a connection that it has not answered.
func (d *Dispatcher) unansweredLocked() bool {
	for _, m := range d.picker.Members() {
		if b := d.backends[m.ID]; b != nil && b.pending > 0 {
			return true
		}
	}
	return false
}

// behindLocked reports whether connections wait for a message of an instance.
func (d *Dispatcher) behindLocked() bool {
	for _, l := range d.listeners {
		if l.behind {
			return true
		}
	}
	return len(d.stranded) > 0
}
