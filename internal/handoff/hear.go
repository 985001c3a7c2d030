package handoff

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// The channels of Receivers are in an epoll set of their own, which is in the loop's. To be woken for each word of theirs costs
// both sides more than the word, so while connections come the loop is deaf to them: it hears them before it hands out the next
// connection, or when none has come for a while.

// deafTime is for how long a word may go unheard, in milliseconds. If a connection waits for one, the loop is not deaf. The
// balancer's copies of connections are open for that much longer, and what a program asks for otherwise waits.
const deafTime = 1

// openChannels makes the set of channels.
func (d *Dispatcher) openChannels() (err error) {
	if d.channels, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	d.spoken = make([]unix.EpollEvent, maxEvents)
	return watch(d.epoll, unix.EPOLL_CTL_ADD, d.channels, unix.EPOLLIN, channelsEvent, 0)
}

// hearAllLocked takes in what Receivers have said, and says whether any has.
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

// attendLocked is for when the loop has dealt with some events, none if it has waited in vain. It says how long the loop may
// wait for the next one, in milliseconds, -1 for any time, and whether it is deaf meanwhile.
func (d *Dispatcher) attendLocked(events int) (timeout int) {
	if d.channels < 0 {
		return -1
	}
	heard := events == 0 && d.hearAllLocked()
	deaf := (events > 0 || heard) && d.unansweredLocked() && !d.behindLocked()
	if deaf != d.deaf {
		var which uint32
		if !deaf {
			which = unix.EPOLLIN
		}
		if err := watch(d.epoll, unix.EPOLL_CTL_MOD, d.channels, which, channelsEvent, 0); err != nil {
			d.options.Log.Error("hear instances, ignoring", "error", err)
		}
		d.deaf = deaf
	}
	if deaf {
		return deafTime
	}
	return -1
}

// unansweredLocked says whether somebody has been given a connection and has not answered.
func (d *Dispatcher) unansweredLocked() bool {
	for _, m := range d.picker.Members() {
		if b := d.backends[m.ID]; b != nil && b.pending > 0 {
			return true
		}
	}
	return false
}

// behindLocked says whether connections wait for somebody's word.
func (d *Dispatcher) behindLocked() bool {
	for _, l := range d.listeners {
		if l.behind {
			return true
		}
	}
	return len(d.stranded) > 0
}
