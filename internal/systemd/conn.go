// Package systemd talks to a service manager over D-Bus: it runs jobs and waits for them, reads the
// state of units and follows it by signals.
//
// It is not a general client. It has the calls that unitgen and lbshim need, and makes them with
// godbus. The context of a call limits that call and never the connection. Signals arrive in order,
// and jobs can be waited for in parallel. A Watcher outlives daemon-reload, daemon-reexec and a
// restart of the bus, and so do a Conn that is kept and its jobs. Only messages of the manager and of the bus are accepted; a message of any
// other sender costs a read of its header, whatever its size.
//
// Types and object paths are those of github.com/coreos/go-systemd, whose D-Bus client is the
// witness in tests. That client does not serve here:
//
//   - Watching without gaps: of services its subscriptions report only the properties that all units
//     have. They drop signals when a channel is full, match changes by every sender on the bus, and
//     end with the connection.
//   - Jobs: a call that waits for a job waits for ever when the connection is lost, and accepts
//     JobRemoved from any sender.
//   - It makes two connections, has no limit for the handshake, and reads either all of a unit's
//     properties at once, some hundred, or one after another.
//   - Its notifications (package daemon) carry no descriptors and have no barrier: package
//     activation sends those.
//   - Its LISTEN_FDS (package activation) leaves gaps for descriptors that it cannot use, sets
//     O_NONBLOCK on descriptions that other processes share, and ignores LISTEN_PIDFDID: package
//     activation takes them.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Names and limits of the D-Bus interface, org.freedesktop.systemd1(5).
const (
	busName     = "org.freedesktop.systemd1"
	managerPath = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerIf   = busName + ".Manager"
	unitIf      = busName + ".Unit"
	jobIf       = busName + ".Job"
	propertyIf  = "org.freedesktop.DBus.Properties"

	// handshakeTimeout limits connecting when the caller's context has no earlier deadline: a bus
	// that is being restarted accepts connections through its socket unit long before it answers.
	// 25 s is libdbus's limit.
	handshakeTimeout = 25 * time.Second

	// busPatience is how long DialToStay waits for a bus if there is another way. A bus answers in
	// milliseconds, and a bus that is restarted within a second.
	busPatience = 5 * time.Second

	// signalBuffer is the capacity of signal channels. godbus's sequential handler queues beyond
	// it, so a full channel neither blocks the connection nor loses a signal; the buffer only saves
	// wake-ups.
	signalBuffer = 64
)

// Endpoint is where a service manager answers. Private is the path of its own socket, which works
// without a bus daemon and sees all signals. Bus is a D-Bus address. Dial and DialToStay say which
// is tried first. An empty field is not tried.
type Endpoint struct {
	Private string
	Bus     string
}

// SystemEndpoint is the system's manager for a caller with that effective user id: PID 1's private
// socket admits root alone. busAddress is DBUS_SYSTEM_BUS_ADDRESS of the environment; empty means
// the standard one.
//
// dbus-daemon closes the connection of a DynamicUser= service before it says a word, as it cannot
// find the user: PID 1 starts it with SYSTEMD_NSS_DYNAMIC_BYPASS=1 since 250.4 (systemd issue
// 22737, open; seen on 252 and 257). A service that needs the bus has a user that stands in
// /etc/passwd or userdb, or a dbus-broker.
func SystemEndpoint(euid int, busAddress string) Endpoint {
	e := Endpoint{Bus: busAddress}
	if e.Bus == "" {
		e.Bus = "unix:path=/run/dbus/system_bus_socket"
	}
	if euid == 0 {
		e.Private = "/run/systemd/private"
	}
	return e
}

// UserEndpoint is the manager of the user whose XDG_RUNTIME_DIR is runtimeDir. busAddress is
// DBUS_SESSION_BUS_ADDRESS; empty means the bus in runtimeDir.
func UserEndpoint(runtimeDir, busAddress string) Endpoint {
	e := Endpoint{Private: runtimeDir + "/systemd/private", Bus: busAddress}
	if e.Bus == "" {
		e.Bus = "unix:path=" + dbus.EscapeBusAddressValue(runtimeDir+"/bus")
	}
	return e
}

// Conn is a way to a service manager. It is safe for concurrent use. Whoever dialled it closes it.
type Conn struct {
	again func(context.Context) (*link, error) // makes the next connection; nil: one that breaks stays broken

	mu     sync.Mutex // held while again runs
	link   *link      // nil after it broke
	broke  bool       // there was another before
	closed bool
}

// Dial connects to the manager at e, and first tries the manager's own socket. ctx ends the
// attempt, not the connection. The error names every way tried.
func Dial(ctx context.Context, e Endpoint) (*Conn, error) {
	l, err := e.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &Conn{link: l}, nil
}

// DialToStay is Dial for a Conn that is kept while units start and stop. When the connection
// breaks, as it does in daemon-reexec or when the bus is restarted, the Conn makes another and asks
// again, for up to two seconds beside the question. A request may then be made twice: a job that is
// queued already is merged.
//
// It tries the bus first, where match rules select the signals. On its own socket a manager sends
// every signal of every unit to each connection, and encodes each signal for each connection: three
// such connections took a third of the CPU of a reload. If a bus does not answer in time, or its
// manager is not there yet, the manager's own socket serves.
func DialToStay(ctx context.Context, e Endpoint) (*Conn, error) {
	l, err := e.dialToStay(ctx)
	if err != nil {
		return nil, err
	}
	return &Conn{again: e.dialToStay, link: l}, nil
}

// Ask runs f with a Conn that is kept as by DialToStay, for some questions at a time when few units
// change: it tries the manager's own socket first. It waits as long for the first connection as for
// another.
func Ask(ctx context.Context, e Endpoint, f func(*Conn) error) error {
	c := &Conn{again: e.dial}
	defer c.Close()
	return f(c)
}

// How often a question is repeated when the connection breaks: PID 1 goes away for some 100 ms in
// daemon-reexec.
const (
	useTries = 20
	usePause = 100 * time.Millisecond
)

var errClosed = errors.New("connection to systemd is closed")

// use runs f with the connection, and if that breaks, and the Conn stays, again with another.
func (c *Conn) use(ctx context.Context, f func(*link) error) error {
	for try := 1; ; try++ {
		l, err := c.present(ctx)
		if err == nil {
			began := time.Now()
			err = f(l)
			if time.Since(began) > useTries*usePause {
				try = 1 // it was a wait, which another outage has ended
			}
		}
		switch {
		case err == nil || c.again == nil || !IsDisconnected(err) || errors.Is(err, context.DeadlineExceeded):
			return err
		case try == useTries && l != nil:
			return lost(err)
		case try == useTries:
			return err
		}
		c.drop(l)
		timer := time.NewTimer(usePause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// lost is err for a connection that there was.
func lost(err error) error {
	if errors.Is(err, errConnectionLost) {
		return err
	}
	return fmt.Errorf("%w: %w", errConnectionLost, err)
}

// present returns the connection, which it makes if there is none.
func (c *Conn) present(ctx context.Context) (l *link, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, errClosed
	case c.link == nil:
		c.link, err = c.again(ctx)
	}
	if err != nil && c.broke {
		err = lost(err) // even if there is no socket: somebody makes it again
	}
	return c.link, err
}

// drop gives up a connection that broke. Whoever waits on it meets an error and takes the next.
func (c *Conn) drop(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l != nil && l == c.link {
		c.link, c.broke = nil, true
		l.bus.Close()
	}
}

// Close closes the connection; calls under way return an error. It may be called more than once.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.link == nil {
		return nil
	}
	return c.link.bus.Close()
}

// call is link.call.
func (c *Conn) call(ctx context.Context, method string, args []any, reply ...any) error {
	return c.use(ctx, func(l *link) error { return l.call(ctx, method, args, reply...) })
}

// property is link.property.
func (c *Conn) property(ctx context.Context, path dbus.ObjectPath, iface, name string) (v dbus.Variant, err error) {
	err = c.use(ctx, func(l *link) error {
		v, err = l.property(ctx, path, iface, name)
		return err
	})
	return v, err
}

// properties is link.properties.
func (c *Conn) properties(ctx context.Context, path dbus.ObjectPath, iface string, names []string) (values map[string]dbus.Variant, err error) {
	err = c.use(ctx, func(l *link) error {
		values, _, err = l.properties(ctx, path, iface, names)
		return err
	})
	return values, err
}

// errConnectionLost: the connection ended while something was waited for.
var errConnectionLost = errors.New("connection to systemd lost")

// IsDisconnected reports whether a call or Dial failed because the manager or the bus went away, as
// both do for some 100 ms in daemon-reexec and a restart of the bus. The requested action may have
// been done all the same.
func IsDisconnected(err error) bool {
	for _, gone := range []error{errConnectionLost, dbus.ErrClosed, io.EOF, unix.EPIPE, unix.ECONNRESET, unix.ECONNREFUSED} {
		if errors.Is(err, gone) {
			return true
		}
	}
	for _, name := range []string{"NoReply", "Disconnected", "NameHasNoOwner", "ServiceUnknown"} {
		if isDBusError(err, "org.freedesktop.DBus.Error."+name) {
			return true
		}
	}
	return false
}

// Booted reports whether systemd is the init system under root (the real root is "/"), as
// sd_booted(3) does.
func Booted(root string) bool {
	st, err := os.Lstat(root + "/run/systemd/system")
	return err == nil && st.IsDir()
}
