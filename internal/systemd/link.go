package systemd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/godbus/dbus/v5"
)

// link is one connection to a service manager.
type link struct {
	bus     *dbus.Conn
	private bool // no bus daemon between us: no match rules, all signals arrive
	found   bool // the manager was there when the connection was made
}

// dial tries the manager's own socket first.
func (e Endpoint) dial(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	l, private := e.dialPrivate(ctx)
	if private == nil {
		return l, nil
	}
	l, bus := e.dialBus(ctx)
	if bus == nil {
		return l, nil
	}
	return nil, dialError(private, bus)
}

// dialToStay tries the bus first, see DialToStay.
func (e Endpoint) dialToStay(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	patience, end := context.WithTimeout(ctx, busPatience)
	l, bus := e.dialBus(patience)
	end()
	if bus == nil && l.found {
		return l, nil
	}
	direct, private := e.dialPrivate(ctx)
	switch {
	case private == nil && bus == nil:
		l.bus.Close()
		return direct, nil
	case private == nil:
		return direct, nil
	case bus == nil:
		return l, nil
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

func (e Endpoint) dialPrivate(ctx context.Context) (*link, error) {
	if e.Private == "" {
		return nil, errNotGiven
	}
	bus, err := dialPrivate(ctx, e.Private)
	if err != nil {
		return nil, err
	}
	return &link{bus: bus, private: true, found: true}, nil
}

func (e Endpoint) dialBus(ctx context.Context) (*link, error) {
	if e.Bus == "" {
		return nil, errNotGiven
	}
	bus, owner, err := dialBus(ctx, e.Bus)
	if err != nil {
		return nil, err
	}
	return &link{bus: bus, found: owner != ""}, nil
}

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

// manager is the manager object, for calls.
func (l *link) manager() dbus.BusObject { return l.bus.Object(busName, managerPath) }

// call calls method of interface managerIf and stores the reply. It never starts a manager: there
// is one, or the call fails at once instead of waiting for the bus to try.
func (l *link) call(ctx context.Context, method string, args []any, reply ...any) error {
	call := l.manager().CallWithContext(ctx, managerIf+"."+method, dbus.FlagNoAutoStart, args...)
	if call.Err != nil {
		return call.Err
	}
	return call.Store(reply...)
}

// property reads one property of an object of the manager.
func (l *link) property(ctx context.Context, path dbus.ObjectPath, iface, name string) (dbus.Variant, error) {
	var v dbus.Variant
	call := l.bus.Object(busName, path).CallWithContext(ctx, propertyIf+".Get", dbus.FlagNoAutoStart, iface, name)
	if call.Err != nil {
		return v, call.Err
	}
	return v, call.Store(&v)
}

// properties reads the named properties of one interface. It sends all requests before it waits for
// the first answer. read is the sequence number on the connection of the first answer: a signal
// with a higher number has the same state or a newer one.
func (l *link) properties(ctx context.Context, path dbus.ObjectPath, iface string, names []string) (values map[string]dbus.Variant, read dbus.Sequence, err error) {
	return l.ask(ctx, path, iface, names).answers()
}

// question is what properties has sent.
type question struct {
	names []string
	calls []*dbus.Call
}

// ask sends the requests of properties, in this order.
func (l *link) ask(ctx context.Context, path dbus.ObjectPath, iface string, names []string) question {
	object := l.bus.Object(busName, path)
	q := question{names, make([]*dbus.Call, len(names))}
	for i, name := range names {
		q.calls[i] = object.GoWithContext(ctx, propertyIf+".Get", dbus.FlagNoAutoStart, make(chan *dbus.Call, 1), iface, name)
	}
	return q
}

// answers waits for the answers of properties.
func (q question) answers() (values map[string]dbus.Variant, read dbus.Sequence, err error) {
	values = make(map[string]dbus.Variant, len(q.names))
	for i, call := range q.calls {
		<-call.Done
		var v dbus.Variant
		if e := call.Store(&v); e != nil {
			if err == nil {
				err = e
			}
			continue
		}
		values[q.names[i]] = v
		if len(values) == 1 || call.ResponseSequence < read {
			read = call.ResponseSequence
		}
	}
	return values, read, err
}

// addMatch asks the bus for the signals that rule describes. On a private socket all signals arrive
// anyway.
func (l *link) addMatch(ctx context.Context, rule ...dbus.MatchOption) error {
	if l.private {
		return nil
	}
	return l.bus.AddMatchSignalContext(ctx, rule...)
}

// removeMatch undoes one addMatch of the same rule.
func (l *link) removeMatch(ctx context.Context, rule ...dbus.MatchOption) error {
	if l.private {
		return nil
	}
	return l.bus.RemoveMatchSignalContext(ctx, rule...)
}

// subscribe has the manager send signals to the bus; without a subscriber it sends none but the end
// of a job, to whoever has queued that. It ends with the connection. A second one on a connection
// is no error: after a reexec the manager may have kept the first.
func (l *link) subscribe(ctx context.Context) error {
	if err := l.call(ctx, "Subscribe", nil); err != nil && !isDBusError(err, busName+".AlreadySubscribed") {
		return fmt.Errorf("subscribe to systemd: %w", err)
	}
	return nil
}

// signals registers a channel for all signals that reach the connection. It is closed when the
// connection ends. The caller hands it back to dbus.Conn.RemoveSignal if it stops reading before
// that.
func (l *link) signals() chan *dbus.Signal {
	ch := make(chan *dbus.Signal, signalBuffer)
	l.bus.Signal(ch)
	return ch
}
