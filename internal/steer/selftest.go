package steer

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// SelfTestResult is the observed behaviour of the running kernel.
type SelfTestResult struct {
	Distribution bool   // the program loads, and spreads connections exactly over two listeners
	Migration    bool   // a queue that moves to another listener wakes who waits there: Rescue and close are lossless
	Reason       string // why the first of these that is false is false
}

// String describes how connections are spread, for "lbshim serve" and "unitgen doctor".
func (r SelfTestResult) String() string {
	switch {
	case !r.Distribution:
		return "classic BPF, spread at random: " + r.Reason
	case !r.Migration:
		return "eBPF, spread exact, waiting connections stay with their instance: " + r.Reason
	}
	return "eBPF, spread exact, waiting connections move"
}

// The size of the self test, and how long it waits for things that the kernel does at once or
// never; together below 100 ms.
const (
	selfTestConnections = 8
	selfTestWait        = 25 // milliseconds
)

// SelfTest tries steering on new sockets, on a free port of 127.0.0.1, and closes them all. It
// needs what New needs, and AF_INET sockets with a loopback interface that is up. A unit with
// RestrictAddressFamilies=AF_UNIX does not have them.
//
// Before "tcp: call sk_data_ready() after listener migration" (mainline 3864c6ba1e04, and stable
// releases from May 2026) a moved connection did not wake epoll: it waited until the next
// connection came. On such a kernel Migration is false, and Rescue must not be used.
func SelfTest() SelfTestResult {
	var opened []int
	defer func() {
		for _, fd := range opened {
			unix.Close(fd)
		}
	}()
	var result SelfTestResult
	if err := result.run(&opened); err != nil {
		result.Reason = err.Error()
	}
	return result
}

// BalancerTest is SelfTest for a balancer, to which systemd gives CAP_BPF and nothing else. Root may
// load the program by CAP_SYS_ADMIN in containers in which systemd has no CAP_BPF to give.
func BalancerTest() SelfTestResult {
	status, err := os.ReadFile("/proc/1/status")
	if err == nil && !bounds(string(status), unix.CAP_BPF) {
		return SelfTestResult{Reason: "systemd has no CAP_BPF to give, as in a container"}
	}
	return SelfTest()
}

// bounds reports whether the capability is in the bounding set of the process whose
// /proc/PID/status this is (proc_pid_status(5)); also if that cannot be told.
func bounds(status string, capability int) bool {
	for line := range strings.Lines(status) {
		if set, ok := strings.CutPrefix(line, "CapBnd:"); ok {
			bits, err := strconv.ParseUint(strings.TrimSpace(set), 16, 64)
			return err != nil || bits&(1<<capability) != 0
		}
	}
	return true
}

// run does the test and adds all descriptors it opens to opened.
func (r *SelfTestResult) run(opened *[]int) error {
	listeners, address, err := selfTestListeners(opened)
	if err != nil {
		return err
	}
	g, err := New(listeners[Parking], func(Maps) error { return nil })
	if err != nil {
		return err
	}
	defer g.Close()
	for slot := 1; slot < len(listeners); slot++ {
		if err := g.Put(slot, listeners[slot]); err != nil {
			return err
		}
	}
	if err := g.SetRing([]uint16{1, 2}); err != nil {
		return err
	}
	for range selfTestConnections {
		if err := selfTestConnect(address, opened); err != nil {
			return err
		}
	}
	for slot, want := range []int{0, selfTestConnections / 2, selfTestConnections / 2} {
		if queued, _, err := Queue(listeners[slot]); err != nil || queued != want {
			return errors.Join(fmt.Errorf("test the spread: slot %d got %d of %d connections, not %d",
				slot, queued, selfTestConnections, want), err)
		}
	}
	r.Distribution = true
	if err := selfTestMigration(g, listeners, opened); err != nil {
		return err
	}
	r.Migration = true
	return nil
}

// selfTestMigration moves the queue of slot 1 to slot 2, whose own is emptied first, and waits for
// the wake-up there.
func selfTestMigration(g *Group, listeners []int, opened *[]int) error {
	for {
		fd, _, err := unix.Accept4(listeners[2], unix.SOCK_CLOEXEC)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		*opened = append(*opened, fd)
	}
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	*opened = append(*opened, poll)
	if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, listeners[2], &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	if err := g.SetRing([]uint16{2}); err != nil {
		return err
	}
	if _, err := g.Rescue(1, listeners[1]); err != nil {
		return err
	}
	if queued, _, err := Queue(listeners[2]); err != nil || queued != selfTestConnections/2 {
		return errors.Join(fmt.Errorf("test migration: %d of %d connections moved", queued, selfTestConnections/2), err)
	}
	events := make([]unix.EpollEvent, 1)
	for {
		n, err := unix.EpollWait(poll, events, selfTestWait)
		switch {
		case err == unix.EINTR: // the Go runtime's own signals
		case err != nil:
			return fmt.Errorf("epoll_wait: %w", err)
		case n == 0:
			return errors.New("test migration: a moved connection wakes nobody (kernel without 3864c6ba1e04)")
		default:
			return nil
		}
	}
}

// selfTestListeners opens a parking listener and two others on one free port.
func selfTestListeners(opened *[]int) ([]int, *unix.SockaddrInet4, error) {
	address := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	// The first socket only finds the port: a listener that was bound to port 0 loses its port in a
	// rescue.
	var listeners []int
	for i := range 4 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		if err != nil {
			return nil, nil, fmt.Errorf("socket: %w", err)
		}
		*opened = append(*opened, fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return nil, nil, fmt.Errorf("setsockopt SO_REUSEPORT: %w", err)
		}
		if err := unix.Bind(fd, address); err != nil {
			return nil, nil, fmt.Errorf("bind 127.0.0.1: %w", err)
		}
		if i == 0 {
			name, err := unix.Getsockname(fd)
			if err != nil {
				return nil, nil, fmt.Errorf("getsockname: %w", err)
			}
			address = name.(*unix.SockaddrInet4)
			continue
		}
		if err := unix.Listen(fd, 2*selfTestConnections); err != nil {
			return nil, nil, fmt.Errorf("listen: %w", err)
		}
		listeners = append(listeners, fd)
	}
	return listeners, address, nil
}

func selfTestConnect(to unix.Sockaddr, opened *[]int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	*opened = append(*opened, fd)
	// connect gives up with EINPROGRESS after this, and close then sends a reset: no TIME_WAIT is
	// left behind.
	wait := unix.Timeval{Usec: selfTestWait * 1000}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait); err != nil {
		return fmt.Errorf("setsockopt SO_SNDTIMEO: %w", err)
	}
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return fmt.Errorf("setsockopt SO_LINGER: %w", err)
	}
	// With a time-out the kernel does not restart connect after the Go runtime's signals. A second
	// call continues to wait.
	for {
		switch err := unix.Connect(fd, to); err {
		case nil, unix.EISCONN:
			return nil
		case unix.EINTR:
		default:
			return fmt.Errorf("connect to 127.0.0.1: %w", err)
		}
	}
}
