package rig

import (
	"context"
	"fmt"
	"os"
	"sync"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// witness says what PID 1 says. It is go-systemd's client, which shares nothing with ours but the
// wire, so that a test which compares both finds what either gets wrong.
type witness struct {
	mu   sync.Mutex
	conn *systemd.Conn
}

// Manager returns a connection to the container's PID 1 by its system bus. It is the container's:
// whoever gets it does not close it. PID 1 leaves the bus for a moment when it executes itself
// again, and calls fail meanwhile.
func (c *Container) Manager(ctx context.Context) (*systemd.Conn, error) {
	b, err := c.current()
	if err != nil {
		return nil, err
	}
	w := &b.witness
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil && w.conn.Connected() {
		return w.conn, nil
	}
	if w.conn != nil { // the bus was restarted
		w.conn.Close()
	}
	w.conn, err = systemd.NewConnection(func() (*dbus.Conn, error) { return b.bus(ctx) })
	return w.conn, err
}

// close ends the connection of a boot that is over.
func (w *witness) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		w.conn.Close()
	}
}

// bus connects to the system bus of this boot. ctx ends the attempt, not the connection, which the
// caller closes.
func (b *boot) bus(ctx context.Context) (*dbus.Conn, error) {
	// A socket with a path is reached through the file system, in whichever network namespace it
	// was made.
	path := fmt.Sprintf("/proc/%d/root/run/dbus/system_bus_socket", b.leader)
	conn, err := dbus.Dial("unix:path=" + path)
	if err != nil {
		return nil, fmt.Errorf("connect to bus: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(fmt.Sprint(os.Getuid()))}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("authenticate at bus: %w", err)
	}
	if err := conn.Hello(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("say hello to bus: %w", err)
	}
	return conn, nil
}
