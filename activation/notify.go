package activation

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	// maxMessage is systemd's NOTIFY_BUFFER_MAX: PID 1 drops datagrams that are longer.
	maxMessage = 4096
	// sendTimeout bounds a send while PID 1 does not read: longer than a daemon-reexec takes,
	// shorter than a watchdog waits.
	sendTimeout = 5 * time.Second
)

// Notifier sends the state of this process to the service manager: sd_notify(3). It is one
// connected datagram socket.
//
// The zero Notifier, a nil one, and one made without NOTIFY_SOCKET do nothing, successfully and
// without a system call, so programs need no second code path for running by hand. Safe for
// concurrent use.
//
// The manager never answers, so success means that it will read the message, not that it accepted
// it: it drops messages of processes that NotifyAccess= does not allow, with a line in the journal.
type Notifier struct {
	mu        sync.RWMutex // held for reading while sending, so that Close does not free a number in use
	fd        int
	connected bool
	closed    bool
	watchdog  time.Duration
}

// NewNotifier connects to NOTIFY_SOCKET and reads WATCHDOG_USEC. The caller closes it. The
// environment is left as it is: unlike LISTEN_*, these variables are of use to children too, if
// NotifyAccess= says so; take them out of a child's environment where it has no business with them.
//
// It fails if the variables cannot be parsed, if the socket is of a kind that services do not see
// (vsock), or if connecting fails.
func NewNotifier() (*Notifier, error) {
	return Env{}.NewNotifier()
}

// NewNotifier is the function NewNotifier with the environment e.
func (e Env) NewNotifier() (*Notifier, error) {
	watchdog, err := parseWatchdog(e.lookup, e.pid())
	if err != nil {
		return nil, err
	}
	n := &Notifier{watchdog: watchdog}
	address, ok := e.lookup("NOTIFY_SOCKET")
	if !ok || address == "" {
		return n, nil
	}
	if n.fd, err = dialNotify(address); err != nil {
		return nil, fmt.Errorf("connect to NOTIFY_SOCKET=%q: %w", address, err)
	}
	n.connected = true
	return n, nil
}

func dialNotify(address string) (fd int, err error) {
	if len(address) < 2 || address[0] != '/' && address[0] != '@' {
		return -1, errors.New(`neither a path ("/run/…") nor an abstract socket ("@…")`)
	}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	timeout := unix.NsecToTimeval(int64(sendTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt(SO_SNDTIMEO)", err)
	}
	// x/sys takes a leading "@" as the zero byte of the abstract namespace.
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// Close closes the socket. Messages sent before are still delivered; sending afterwards fails with
// net.ErrClosed.
func (n *Notifier) Close() error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.connected || n.closed {
		return nil
	}
	n.closed = true
	return os.NewSyscallError("close", unix.Close(n.fd))
}

// Enabled reports whether there is a service manager to send to.
func (n *Notifier) Enabled() bool {
	return n != nil && n.connected
}

// Ready says that start-up, or the reload begun with Reloading, is complete: READY=1.
func (n *Notifier) Ready() error { return n.send("READY=1") }

// Reloading says that a reload began: RELOADING=1 with MONOTONIC_USEC, in one datagram as
// Type=notify-reload wants it. Call Ready when the reload is over, also when it failed, or
// "systemctl reload" hangs.
func (n *Notifier) Reloading() error {
	if !n.Enabled() {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("notify RELOADING=1: %w", os.NewSyscallError("clock_gettime", err))
	}
	return n.send("RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10))
}

// Stopping reports that the process is shutting down: STOPPING=1. It cannot be undone.
func (n *Notifier) Stopping() error { return n.send("STOPPING=1") }

// Status shows text in "systemctl status". Line breaks and other control characters become spaces.
// Text that is not UTF-8 or too long for one message is cut, since the manager would drop it.
func (n *Notifier) Status(text string) error {
	if !n.Enabled() {
		return nil
	}
	return n.send("STATUS=" + cleanStatus(text))
}

func cleanStatus(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r // invalid bytes arrive as utf8.RuneError and leave as valid UTF-8
	}, text)
	const limit = maxMessage - len("STATUS=")
	if len(text) <= limit {
		return text
	}
	end := limit
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// Errno reports the error that makes the process fail, for "systemctl status": ERRNO=.
func (n *Notifier) Errno(errno unix.Errno) error {
	return n.send("ERRNO=" + strconv.Itoa(int(errno)))
}

// MainPID names the process that the manager shall watch as the main one: MAINPID=. It must belong
// to the service.
func (n *Notifier) MainPID(pid int) error {
	return n.send("MAINPID=" + strconv.Itoa(pid))
}

// ExtendTimeout asks for d more, from now, for the start, reload or stop that is under way:
// EXTEND_TIMEOUT_USEC=. The first call must come before the unit's own time-out ends, and each
// later one before the last extension ends. d is at least a microsecond.
func (n *Notifier) ExtendTimeout(d time.Duration) error {
	if d < time.Microsecond {
		return fmt.Errorf("notify EXTEND_TIMEOUT_USEC: %s is less than a microsecond", d)
	}
	return n.send("EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(d.Microseconds(), 10))
}

// Send sends assignments without a method here ("RESTART_RESET=1"), in one datagram.
func (n *Notifier) Send(assignments ...string) error {
	for _, a := range assignments {
		if key, _, ok := strings.Cut(a, "="); !ok || key == "" || strings.ContainsAny(a, "\n\x00") {
			return fmt.Errorf("notify %q: not one line KEY=VALUE", a)
		}
	}
	if len(assignments) == 0 {
		return errors.New("notify: nothing to send")
	}
	return n.send(strings.Join(assignments, "\n"))
}

// send sends one message, with copies of fds. Not net.UnixConn: its WriteMsgUnix refuses connected
// datagram sockets, and the deadline that matters is the socket's own.
func (n *Notifier) send(message string, fds ...int) error {
	if !n.Enabled() {
		return nil
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	err := n.sendLocked(message, fds)
	if err != nil {
		first, _, _ := strings.Cut(message, "\n")
		return fmt.Errorf("notify %.64s: %w", first, err)
	}
	return nil
}

func (n *Notifier) sendLocked(message string, fds []int) error {
	if n.closed {
		return net.ErrClosed
	}
	if len(message) > maxMessage {
		return fmt.Errorf("message of %d bytes is longer than %d", len(message), maxMessage)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(n.fd, []byte(message), rights, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) { // SO_SNDTIMEO switches off the restart of system calls
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("sendmsg: not read within %s: %w", sendTimeout, err)
		}
		return os.NewSyscallError("sendmsg", err)
	}
}
