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
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/lifecycle"
	"github.com/unitgen/unitgen/internal/shim"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Names of what PID 1 passes: FileDescriptorName= of app.socket, app-control.socket, app-diag.socket and
// app-channel.socket.
const (
	nameParking = "parking"
	nameControl = "control"
	nameDiag    = "diag"
	nameChannel = "channel"
)

// serve is the shim.
func serve(ctx context.Context, e *env, o options) error {
	passed, err := activation.Inherit()
	if err != nil {
		return &statusError{exitNotConfigured, err}
	}
	defer passed.Close()
	inherited, ln, err := sortPassed(passed)
	if err != nil {
		return &statusError{exitNotConfigured, fmt.Errorf("%w (start it with: systemctl start %s)", err, o.app.Service())}
	}
	notify, err := activation.NewNotifier()
	if err != nil {
		return err
	}
	defer notify.Close()

	endpoint := o.endpoint(e)
	log := e.log.With("app", string(o.app))
	units := systemd.NewWatcher(systemd.WatcherOptions{Endpoint: endpoint, Lost: func(err error) {
		if err != nil {
			log.Warn("lost systemd, the ring stays as it is until it is back", "error", err)
			return
		}
		log.Info("following systemd")
	}})
	defer units.Close()

	if o.path != string(app.PathSteer) && o.path != string(app.PathHandoff) {
		return usageError("--path= must be steer or handoff, got %q", o.path)
	}
	s, err := shim.New(shim.Options{
		App: o.app, Path: app.Path(o.path), Settings: o.settings(), Messages: o.messages, Drained: drainedSince(e, o),
	}, inherited, notify, endpoint, units, log)
	if err != nil {
		return err
	}
	ctx, cancel := linger(ctx, e, o)
	defer cancel()
	return serveUntil(ctx, s, ln, &control.Server{Handle: s.Handler(), Log: log, UID: os.Geteuid()})
}

// drainedSince reads the notes by which the drain of the host outlives the shim; zero if there is none.
func drainedSince(e *env, o options) (since time.Time) {
	for _, note := range []string{o.app.DrainNote(o.runtimeDir(e)), o.app.PersistentDrainNote(app.StateDir(o.userUnits, e.getenv))} {
		if info, err := os.Stat(note); err == nil {
			since = info.ModTime()
		}
	}
	return since
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
		return &statusError{lifecycle.ExitIdle, errSilent{}}
	}
	return err
}

// errSilent carries an exit status without a message.
type errSilent struct{}

func (errSilent) Error() string { return "" }

// sortPassed takes apart what PID 1 passed: public listeners, control socket, and what an earlier shim stored.
func sortPassed(passed *activation.Descriptors) (shim.Inherited, *net.UnixListener, error) {
	var inherited shim.Inherited
	ln, err := unixListener(passed, nameControl)
	if err != nil {
		return inherited, nil, err
	}
	if len(passed.Named(nameChannel)) > 0 {
		if inherited.Channels, err = unixListener(passed, nameChannel); err != nil {
			return inherited, nil, err
		}
	}
	for _, d := range passed.All() {
		if d.FD() < 0 {
			continue
		}
		fd, err := d.Take()
		if err != nil {
			return inherited, nil, err
		}
		switch d.Name() {
		case nameParking:
			inherited.Parking = append(inherited.Parking, fd)
		case nameDiag:
			inherited.Diag = append(inherited.Diag, fd)
		default:
			inherited.Stored = append(inherited.Stored, shim.Stored{Name: d.Name(), FD: fd})
		}
	}
	if len(inherited.Parking) == 0 {
		return inherited, nil, fmt.Errorf("take public listeners: no socket named %q was passed", nameParking)
	}
	return inherited, ln, nil
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
