// Package systemd talks to a service manager over D-Bus: it runs jobs and waits for them, reads the
// state of units and follows it by signals.
//
// It is not a general client. It has the calls that unitgen and lbshim need, and makes them with
// godbus. The context of a call limits that call and never the connection. Signals arrive in order,
// and jobs can be waited for in parallel. A Watcher outlives daemon-reload, daemon-reexec and a
// restart of the bus. Only messages of the manager and of the bus are accepted; a message of any
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
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
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

// Conn is a connection to a service manager. It is safe for concurrent use. Whoever dialled it
// closes it.
type Conn struct {
	bus     *dbus.Conn
	private bool // no bus daemon between us: no match rules, all signals arrive
	found   bool // the manager was there when the connection was made
}

// Dial connects to the manager at e. ctx ends the attempt, not the connection. The error names
// every way tried.
func Dial(ctx context.Context, e Endpoint) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, private := e.dialPrivate(ctx)
	if private == nil {
		return conn, nil
	}
	conn, bus := e.dialBus(ctx)
	if bus == nil {
		return conn, nil
	}
	return nil, dialError(private, bus)
}

// DialToStay is Dial for a connection that is kept while units start and stop. It tries the bus
// first, where match rules select the signals. On its own socket a manager sends every signal of
// every unit to each connection, and encodes each signal for each connection: three such
// connections took a third of the CPU of a reload. If a bus does not answer in time, or its manager
// is not there yet, DialToStay uses the manager's own socket.
func DialToStay(ctx context.Context, e Endpoint) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	patience, end := context.WithTimeout(ctx, busPatience)
	conn, bus := e.dialBus(patience)
	end()
	if bus == nil && conn.found {
		return conn, nil
	}
	direct, private := e.dialPrivate(ctx)
	switch {
	case private == nil && bus == nil:
		conn.Close()
		return direct, nil
	case private == nil:
		return direct, nil
	case bus == nil:
		return conn, nil
	}
	return nil, dialError(bus, private)
}

var errNotGiven = errors.New("no address given")

// dialError leaves out a way that was not given, unless none was.
func dialError(first, second error) error {
	switch {
	case errors.Is(first, errNotGiven):
		first = nil
	case errors.Is(second, errNotGiven):
		second = nil
	}
	return fmt.Errorf("connect to systemd: %w", errors.Join(first, second))
}

func (e Endpoint) dialPrivate(ctx context.Context) (*Conn, error) {
	if e.Private == "" {
		return nil, errNotGiven
	}
	bus, err := dialPrivate(ctx, e.Private)
	if err != nil {
		return nil, err
	}
	return &Conn{bus: bus, private: true, found: true}, nil
}

func (e Endpoint) dialBus(ctx context.Context) (*Conn, error) {
	if e.Bus == "" {
		return nil, errNotGiven
	}
	bus, owner, err := dialBus(ctx, e.Bus)
	if err != nil {
		return nil, err
	}
	return &Conn{bus: bus, found: owner != ""}, nil
}

// Close closes the connection; calls under way return an error. It may be called more than once.
func (c *Conn) Close() error { return c.bus.Close() }

// buffered reads ahead. godbus reads a message field by field, and a manager sends every signal of
// every unit to each connection on its own socket.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// dialPrivate connects to a manager's own socket, which uses the authentication of D-Bus but has no
// Hello, as there is no bus to give a name. It does not use godbus's dial, which has no deadline
// for connecting and authenticating.
func dialPrivate(ctx context.Context, path string) (*dbus.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := nc.SetDeadline(deadline); err != nil {
		nc.Close()
		return nil, fmt.Errorf("set deadline of %s: %w", path, err)
	}
	conn, err := dbus.NewConn(buffered{nc, bufio.NewReader(nc)}, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("speak D-Bus on %s: %w", path, err)
	}
	if err := conn.Auth(nil); err != nil {
		conn.Close()
		return nil, fmt.Errorf("authenticate on %s: %w", path, err)
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("clear deadline of %s: %w", path, err)
	}
	if err := wake(ctx, conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("greet %s: %w", path, err)
	}
	return conn, nil
}

// wake makes the manager serve a new private connection. The server side of sd-bus (seen on 252 and
// 257) reads the end of the authentication together with a first message that follows closely,
// keeps the message in its buffer and looks at it when more arrives: without another message the
// first is never answered. So pings are sent until one is.
func wake(ctx context.Context, conn *dbus.Conn) error {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		pingCtx, cancel := context.WithTimeout(ctx, wait)
		err := conn.Object(busName, managerPath).CallWithContext(pingCtx, "org.freedesktop.DBus.Peer.Ping", 0).Err
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// dialBus connects to a bus and says Hello. The connection receives messages from the bus and the
// manager only (see gate), and takes no descriptors: those in an unwanted message would stay open.
// It does not use godbus's dial, which takes no deadline. owner is the manager; empty if the bus has
// none.
func dialBus(ctx context.Context, address string) (conn *dbus.Conn, owner string, err error) {
	sockets, err := busSockets(address)
	if err != nil {
		return nil, "", err
	}
	var failed []error
	for _, path := range sockets {
		conn, owner, err := dialBusSocket(ctx, path)
		if err == nil {
			return conn, owner, nil
		}
		failed = append(failed, err)
	}
	return nil, "", errors.Join(failed...)
}

func dialBusSocket(ctx context.Context, path string) (conn *dbus.Conn, owner string, err error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, "", err
	}
	g := newGate(nc)
	conn, err = dbus.NewConn(g, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()), dbus.WithIncomingInterceptor(g.hear))
	if err != nil {
		nc.Close()
		return nil, "", fmt.Errorf("speak D-Bus on %s: %w", path, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	owner, err = greetBus(ctx, conn, g)
	if !stop() {
		err = ctx.Err() // the connection was closed under us, or is about to be
	}
	if err != nil {
		conn.Close()
		return nil, "", fmt.Errorf("greet bus on %s: %w", path, err)
	}
	return conn, owner, nil
}

// greetBus authenticates, gets a name and finds the manager.
func greetBus(ctx context.Context, conn *dbus.Conn, g *gate) (owner string, err error) {
	if err := conn.Auth(nil); err != nil {
		return "", err
	}
	if err := conn.Hello(); err != nil {
		return "", err
	}
	err = conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(daemonName), dbus.WithMatchInterface(daemonName),
		dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, busName))
	if err != nil {
		return "", err
	}
	err = conn.BusObject().CallWithContext(ctx, daemonName+".GetNameOwner", 0, busName).Store(&owner)
	if err != nil && !isDBusError(err, daemonName+".Error.NameHasNoOwner") {
		return "", err
	}
	g.begin(owner)
	return owner, nil
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

// manager is the manager object, for calls.
func (c *Conn) manager() dbus.BusObject { return c.bus.Object(busName, managerPath) }

// call calls method of interface managerIf and stores the reply. It never starts a manager: there
// is one, or the call fails at once instead of waiting for the bus to try.
func (c *Conn) call(ctx context.Context, method string, args []any, reply ...any) error {
	call := c.manager().CallWithContext(ctx, managerIf+"."+method, dbus.FlagNoAutoStart, args...)
	if call.Err != nil {
		return call.Err
	}
	return call.Store(reply...)
}

// addMatch asks the bus for the signals that rule describes. On a private socket all signals arrive
// anyway.
func (c *Conn) addMatch(ctx context.Context, rule ...dbus.MatchOption) error {
	if c.private {
		return nil
	}
	return c.bus.AddMatchSignalContext(ctx, rule...)
}

// removeMatch undoes one addMatch of the same rule.
func (c *Conn) removeMatch(ctx context.Context, rule ...dbus.MatchOption) error {
	if c.private {
		return nil
	}
	return c.bus.RemoveMatchSignalContext(ctx, rule...)
}

// signals registers a channel for all signals that reach the connection. It is closed when the
// connection ends. The caller hands it back to dbus.Conn.RemoveSignal if it stops reading before
// that.
func (c *Conn) signals() chan *dbus.Signal {
	ch := make(chan *dbus.Signal, signalBuffer)
	c.bus.Signal(ch)
	return ch
}

// Booted reports whether systemd is the init system under root (the real root is "/"), as
// sd_booted(3) does.
func Booted(root string) bool {
	st, err := os.Lstat(root + "/run/systemd/system")
	return err == nil && st.IsDir()
}
