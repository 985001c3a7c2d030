// Package lifecycle is what ExecStartPost=, ExecStop= and ExecStopPost= of app.service do as root,
// so that the verbs of systemctl work for the whole app as for one service: stop closes the port
// and the app stays stopped, restart restarts every instance and refuses no connection, and a crash
// of the shim does neither.
//
// Dependencies between the units cannot do this. PartOf= or StopPropagatedFrom= on instances or
// sockets would act when the shim crashes, as the automatic restart of Restart=always is a restart
// job (seen on systemd 252 and 257).
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/handoff"
	"github.com/unitgen/unitgen/internal/process"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Stop runs while app.service stops. For a restart it does nothing: the next shim restarts the
// instances (see Resume). Otherwise it makes the shim refuse new connections and stops the
// instances.
//
// It returns when the instances have stopped. Errors are those of single units; the other units are
// handled all the same.
func Stop(ctx context.Context, conn *systemd.Conn, name app.Name, controlPath string) error {
	shim, err := conn.Unit(ctx, name.Service())
	if err != nil {
		return err
	}
	if strings.Contains(shim.JobType, "restart") {
		return nil
	}
	// The agent stays until the shim has ended: it says what the shim says, "maint" from now on. So
	// do the metrics.
	actors := slices.DeleteFunc(name.Triggers(), func(unit string) bool { return unit == name.AgentSocket() || unit == name.MetricsSocket() })
	return errors.Join(stopTriggers(ctx, conn, name, actors), refuse(ctx, shim.MainPID, controlPath), stopInstances(ctx, conn, name))
}

// stopTriggers keeps timers and watched files from acting on an app that stops. It does not wait:
// PID 1 stops them at once.
func stopTriggers(ctx context.Context, conn *systemd.Conn, name app.Name, units []string) error {
	all, err := conn.ListUnits(ctx, units...)
	if err != nil {
		return fmt.Errorf("list triggers of %s: %w", name, err)
	}
	var errs []error
	for _, u := range all {
		if !u.Dead() {
			errs = append(errs, conn.Enqueue(ctx, systemd.Job{Verb: systemd.Stop, Unit: u.Name}))
		}
	}
	return errors.Join(errs...)
}

// refuse closes the port at once: the kernel refuses new connections from then on, those that wait
// are still served. It fails when the shim dies: PID 1 starts no other one in a stop.
func refuse(ctx context.Context, shim int, controlPath string) error {
	if shim == 0 {
		return errDied
	}
	ctx, cancel := process.Context(ctx, shim)
	defer cancel()
	err := refuseOnce(ctx, controlPath)
	if err != nil && errors.Is(context.Cause(ctx), process.ErrEnded) {
		return errDied
	}
	return err
}

// errDied says that the port of the app stays open until its instances have ended.
var errDied = errors.New("close port: the balancer has died")

func refuseOnce(ctx context.Context, controlPath string) error {
	listeners, err := control.Take(ctx, controlPath, control.MethodClose, struct{}{})
	errs := []error{err}
	for _, fd := range listeners { // of the handoff path, where it takes root
		errs = append(errs, handoff.Refuse(fd), unix.Close(fd))
	}
	return errors.Join(errs...)
}

func stopInstances(ctx context.Context, conn *systemd.Conn, name app.Name) error {
	instances, err := conn.Instances(ctx, name)
	if err != nil {
		return err
	}
	var jobs []systemd.Job
	for _, in := range instances {
		jobs = append(jobs, systemd.Job{Verb: systemd.Stop, Unit: in.Name})
	}
	return conn.Run(ctx, jobs...)
}

// Cleanup runs after the shim has ended for any reason, and when the control socket has stopped.
// idle means that the shim ended because the app is idle.
//
// If app.service was stopped, Cleanup stops the rest of the app: the sockets, and the instances if
// the shim was not ready yet, as PID 1 skips ExecStop= then. If the app is idle, the parking
// listener stays, so that the next connection starts everything. After a crash there is nothing to
// do.
//
// If app.service is stopped between a crash and its restart, PID 1 runs none of its ExecStop=
// commands. It does stop the control socket (PartOf=), and that socket's ExecStopPost= calls
// Cleanup. Cleanup recognises the case: app.service is inactive and has no queued start job, or
// only one from a socket.
func Cleanup(ctx context.Context, conn *systemd.Conn, name app.Name, runtimeDir string, idle bool) error {
	shim, err := conn.Unit(ctx, name.Service())
	if err != nil {
		return err
	}
	stop := shim.JobType == "stop"
	if !stop {
		if stop, err = leftOpen(ctx, conn, name); err != nil {
			return err
		}
	}
	if !stop && !idle {
		return nil
	}
	var errs []error
	if stop { // first, so that no connection starts the app again
		errs = append(errs, closeSockets(ctx, conn, name))
	}
	triggers := name.Triggers()
	if !stop { // the metrics of an app that is idle say so
		triggers = slices.DeleteFunc(triggers, func(unit string) bool { return unit == name.MetricsSocket() })
	}
	errs = append(errs, stopTriggers(ctx, conn, name, triggers), stopInstances(ctx, conn, name))
	sockets, err := conn.InstanceSockets(ctx, name)
	errs = append(errs, err)
	var jobs []systemd.Job
	for _, u := range sockets {
		// A socket with a stop job is being stopped by the shutdown of the system. There sockets
		// stop after app.service, which waits for this process.
		if u.JobType != "stop" {
			jobs = append(jobs, systemd.Job{Verb: systemd.Stop, Unit: u.Name})
		}
	}
	// Wait for the sockets. If a new start of the app cancelled the stop of an instance's socket,
	// the socket would not join again, and the next shim would not know the instance.
	errs = append(errs, conn.Run(ctx, jobs...))
	for _, u := range sockets { // PID 1 has done it, unless a unit of the administrator's keeps it from that
		errs = append(errs, ForgetJoined(runtimeDir, u.Number))
	}
	return errors.Join(errs...)
}

// leftOpen reports whether this is the ExecStopPost= of the control socket, at the end of a stop
// that has run nothing of app.service and so has left the app's other sockets open. What waits at
// one of them may have started the shim again, which cancels the stop; an administrator's start in
// this same moment is taken for that.
func leftOpen(ctx context.Context, conn *systemd.Conn, name app.Name) (bool, error) {
	controlSocket, err := conn.Unit(ctx, name.ControlSocket())
	// After a crash of the shim the control socket is restarted with it.
	if err != nil || controlSocket.SubState != "stop-post" || strings.Contains(controlSocket.JobType, "restart") {
		return false, err
	}
	for _, unit := range []string{name.Socket(), name.DiagSocket(), name.ChannelSocket()} {
		socket, err := conn.Unit(ctx, unit)
		if err != nil {
			return false, err
		}
		// A socket that is younger than the stop was opened by a later start, and must be left
		// alone.
		if socket.ActiveState == "active" && socket.JobType != "stop" && socket.ActiveEnter < controlSocket.StateChange {
			return true, nil
		}
	}
	return false, nil
}

// closeSockets queues stop jobs for the app's own sockets. It does not wait: the sockets stop after
// app.service, which waits for this process.
func closeSockets(ctx context.Context, conn *systemd.Conn, name app.Name) error {
	var errs []error
	for _, unit := range []string{name.Socket(), name.ControlSocket(), name.DiagSocket(), name.ChannelSocket()} {
		err := conn.Enqueue(ctx, systemd.Job{Verb: systemd.Stop, Unit: unit})
		if unit == name.ChannelSocket() && systemd.IsNoSuchUnit(err) {
			err = nil // only Node.js apps have it
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Answers reports whether a shim whose unit is in that state answers on the control socket, or will
// soon. A shim that is ending for good does not answer, and a connection to its socket would make
// PID 1 start it again in place of the stop that is under way.
func Answers(shim systemd.UnitState) bool {
	switch {
	case shim.Dead():
		// Between two processes, which a restart by PID 1 is too.
		return strings.Contains(shim.JobType, "start") || shim.AwaitsRestart()
	case shim.Leaving():
		// While ExecStop= runs (SubState=stop) the shim works, unless it has died. After that, a
		// shim that was stopped or whose app is idle does not come back. PID 1 starts a shim again
		// that has crashed or is being restarted.
		//
		// Where PID 1 skips ExecStop=, the process of the reload or start does its work, and the
		// shim waits for that process.
		stopping := shim.MainPID != 0 && (shim.SubState == "stop" || shim.SubState == "stop-sigterm" && shim.ControlPID != 0)
		return stopping || shim.JobType != "stop" && !asleep(shim)
	}
	return true
}

// ExitIdle is the exit status of a shim that ends because its app is idle:
// RestartPreventExitStatus= of its unit. systemd calls it NOTRUNNING.
const ExitIdle = 7

// asleep says that the shim has ended as the app is idle.
func asleep(shim systemd.UnitState) bool {
	return shim.MainPID == 0 && shim.Result == "success" && shim.ExecMainStatus == ExitIdle
}
