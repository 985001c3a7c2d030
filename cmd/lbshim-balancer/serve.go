package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/unitgen/unitgen/activation"
	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/command"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/shim"
	"github.com/unitgen/unitgen/internal/shim/handed"
	"github.com/unitgen/unitgen/internal/shim/path"
	"github.com/unitgen/unitgen/internal/shim/steered"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Names of what PID 1 passes: FileDescriptorName= of app.socket, app-control.socket,
// app-diag.socket and app-channel.socket.
const (
	nameParking = "parking"
	nameControl = "control"
	nameDiag    = "diag"
	nameChannel = "channel"
)

// serve is the shim.
func serve(ctx context.Context, e *command.Env, o command.Options) error {
	passed, err := activation.Inherit()
	if err != nil {
		return command.WithStatus(command.ExitNotConfigured, err)
	}
	defer passed.Close()
	inherited, ln, err := sortPassed(passed)
	if err != nil {
		return command.WithStatus(command.ExitNotConfigured, fmt.Errorf("%w (start it with: systemctl start %s)", err, o.App.Service()))
	}
	notify, err := activation.NewNotifier()
	if err != nil {
		return err
	}
	defer notify.Close()

	endpoint := o.Endpoint(e)
	log := e.Log.With("app", string(o.App))
	units := systemd.NewWatcher(systemd.WatcherOptions{Endpoint: endpoint, Properties: shim.Properties(), Lost: func(err error) {
		if err != nil {
			log.Warn("lost the connection to systemd, the ring does not change until it is back", "error", err)
			return
		}
		log.Info("following systemd")
	}})
	defer units.Close()

	store := path.NewStore(o.App, notify, inherited.stored, log)
	shimOptions := shim.Options{
		App: o.App, Settings: o.Settings(), Channels: inherited.channels, Messages: o.Messages, Drained: drainedSince(e, o),
		Store: store, Notify: notify, Manager: endpoint, Units: units, Log: log,
	}
	if err := openPath(&shimOptions, e, o, inherited); err != nil {
		return err
	}
	s, err := shim.New(shimOptions)
	if err != nil {
		return err
	}
	ctx, cancel := linger(ctx, e, o)
	defer cancel()
	return serveUntil(ctx, s, ln, &control.Server{Handle: s.Handler(), Log: log, UID: os.Geteuid()})
}

// drainedSince reads the notes that keep the drain of the host when the shim ends; zero if there is
// none.
func drainedSince(e *command.Env, o command.Options) (since time.Time) {
	for _, note := range []string{o.App.DrainNote(o.RuntimeDir(e)), o.App.PersistentDrainNote(app.StateDir(o.UserUnits, e.Getenv))} {
		if info, err := os.Stat(note); err == nil {
			since = info.ModTime()
		}
	}
	return since
}

// openPath opens the data path of the options.
func openPath(s *shim.Options, e *command.Env, o command.Options, in inherited) (err error) {
	switch app.Path(o.Path) {
	case app.PathSteer:
		s.Path, err = steered.Open(steered.Options{
			App: o.App, Strategy: s.Strategy, Parking: in.parking, Diag: in.diag, Store: s.Store, Log: s.Log,
			Cgroup: func(instance int) (string, error) { return cgroupOf(e, o, o.App.InstanceSocket(instance)) },
		})
	case app.PathHandoff:
		var p *handed.Path
		p, err = handed.Open(handed.Options{
			App: o.App, Strategy: s.Strategy, MaxConnections: s.MaxConnections, Parking: in.parking, Diag: in.diag,
			Receivers: in.channels != nil && !o.Messages, Store: s.Store, Log: s.Log,
		})
		if s.Path = p; in.channels != nil && !o.Messages {
			s.Receiving = p
		}
	default:
		err = command.UsageError("--path= must be steer or handoff, got %q", o.Path)
	}
	return err
}

// cgroupTimeout bounds a question to PID 1 that the shim's loop waits for. PID 1 answers in well
// under a millisecond; it does not read during daemon-reload, seconds on hosts with thousands of
// units.
const cgroupTimeout = 5 * time.Second

// cgroupOf asks PID 1 for the control group of a unit.
func cgroupOf(e *command.Env, o command.Options, unit string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), cgroupTimeout)
	defer cancel()
	conn, err := systemd.Dial(ctx, o.Endpoint(e))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	state, err := conn.Unit(ctx, unit)
	return state.ControlGroup, err
}

// serveUntil runs the shim and its control server until one of them ends.
func serveUntil(ctx context.Context, s *shim.Shim, ln *net.UnixListener, server *control.Server) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { // ends with ctx, awaited below
		served <- server.Serve(ctx, ln)
		cancel()
	}()
	err := s.Run(ctx)
	cancel()
	// Handlers that wait for the loop give up with ctx.
	if serveErr := <-served; err == nil {
		err = serveErr
	}
	if errors.Is(err, shim.ErrIdle) {
		return command.WithStatus(lifecycle.ExitIdle, command.ErrSilent)
	}
	return err
}

// inherited is what PID 1 passes to a shim.
type inherited struct {
	parking  []int             // the public listeners of app.socket
	stored   []path.Stored     // what an earlier shim put into the FD store
	channels *net.UnixListener // of app-channel.socket; nil where instances are no Node.js programs
	diag     []int             // NETLINK_SOCK_DIAG sockets of the host's network namespace, two or none: see package sockdiag
}

// sortPassed takes apart what PID 1 passed: public listeners, control socket, and what an earlier
// shim stored.
func sortPassed(passed *activation.Descriptors) (in inherited, ln *net.UnixListener, err error) {
	ln, err = unixListener(passed, nameControl)
	if err != nil {
		return in, nil, err
	}
	if len(passed.Named(nameChannel)) > 0 {
		if in.channels, err = unixListener(passed, nameChannel); err != nil {
			return in, nil, err
		}
	}
	for _, d := range passed.All() {
		if d.FD() < 0 {
			continue
		}
		fd, err := d.Take()
		if err != nil {
			return in, nil, err
		}
		switch d.Name() {
		case nameParking:
			in.parking = append(in.parking, fd)
		case nameDiag:
			in.diag = append(in.diag, fd)
		default:
			in.stored = append(in.stored, path.Stored{Name: d.Name(), FD: fd})
		}
	}
	if len(in.parking) == 0 {
		return in, nil, fmt.Errorf("take public listeners: no socket named %q was passed", nameParking)
	}
	return in, ln, nil
}

// unixListener takes the one unix socket of that name.
func unixListener(passed *activation.Descriptors, name string) (*net.UnixListener, error) {
	all, err := passed.Listeners(name)
	if err != nil {
		return nil, err
	}
	ln, ok := all[0].(*net.UnixListener)
	if !ok || len(all) != 1 {
		return nil, fmt.Errorf("take %s socket: %d sockets of that name were passed, not one unix listener", name, len(all))
	}
	return ln, nil
}
