package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/rollout"
	"github.com/unitgen/unitgen/internal/systemd"
)

// endFile of the app's runtime directory says how the last shim ended: asked for a restart, or
// when.
const (
	endFile   = "balancer-end"
	restarted = "restart"
)

// NoteEnd runs after the shim has ended, before PID 1 starts the next one. From its note Resume
// learns whether an administrator or PID 1 has restarted the shim.
//
// Instances that have failed, or wait for their restart, need no drain. On a restart of the app
// NoteEnd starts them at once and resets their start limit: the next shim is ready with the first
// ready instance.
func NoteEnd(ctx context.Context, conn *systemd.Conn, name app.Name, runtimeDir string) error {
	now, err := monotonic()
	if err != nil {
		return err
	}
	shim, err := conn.Unit(ctx, name.Service())
	if err != nil {
		return err
	}
	isRestart := strings.Contains(shim.JobType, "restart")
	note := strconv.FormatInt(now, 10)
	if isRestart {
		note = restarted
	}
	if err := writeNote(filepath.Join(runtimeDir, endFile), note); err != nil {
		return fmt.Errorf("note end of the balancer: %w", err)
	}
	if !isRestart {
		return nil
	}
	instances, err := conn.Instances(ctx, name)
	if err != nil {
		return err
	}
	var errs []error
	for _, in := range instances {
		failed := in.ActiveState == "failed"
		if failed {
			errs = append(errs, conn.ResetFailed(ctx, in.Name), conn.ResetFailed(ctx, name.InstanceSocket(in.Number)))
		}
		if failed || in.AwaitsRestart() {
			errs = append(errs, conn.Enqueue(ctx, systemd.Job{Verb: systemd.Restart, Unit: in.Name}))
		}
	}
	return errors.Join(errs...)
}

// writeNote writes the note as the target of a symbolic link, which fits into a full /run: tmpfs
// keeps a short target in the inode (shmem_symlink() in mm/shmem.c). Without its note a restart
// would restart no instance, and succeed.
func writeNote(path, text string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(text, path)
}

// Resume runs when a new shim is ready. After a restart by an administrator it restarts the
// instances that are older than the shim, all at once, each drained by its ExecStop=. Connections
// wait at the parking listener meanwhile. Resume returns when all instances are ready, and then the
// restart ends; an instance that does not get ready makes the restart fail.
//
// ExecStop= of the old shim would be the natural place, while a shim is alive. But PID 1 skips
// ExecStop= when it stops a service that is reloading, starting or between a crash and its restart
// (service_stop in src/core/service.c). And if the shim died meanwhile, PID 1 would start the next
// one only after the drains, which wait for a shim.
//
// After any start Resume removes the extra instances of a rollout that the end of the shim has
// interrupted, and closes the listeners of instances that are not the app's any more.
func Resume(ctx context.Context, conn *systemd.Conn, name app.Name, runtimeDir string, log *slog.Logger) error {
	extra, err := rollout.Abandoned(ctx, conn, name, runtimeDir)
	if err != nil {
		return err
	}
	shim, err := conn.Unit(ctx, name.Service())
	if err != nil {
		return err
	}
	var errs []error
	asked, err := askedFor(ctx, conn, name, filepath.Join(runtimeDir, endFile))
	if errs = append(errs, err); asked {
		errs = append(errs, renew(ctx, conn, name, shim, extra))
	}
	return errors.Join(append(errs, rollout.RemoveAbandoned(ctx, conn, name, runtimeDir, extra, log), closeUnwanted(ctx, conn, name, log))...)
}

// closeUnwanted closes the listeners of instances that do not run and that nothing starts with the app.
// The unit that joins them opens them, until unitgen writes it again, if an instance was disabled by
// systemctl.
func closeUnwanted(ctx context.Context, conn *systemd.Conn, name app.Name, log *slog.Logger) error {
	wanted, err := conn.Wants(ctx, name.Service())
	if err != nil {
		return err
	}
	sockets, err := conn.InstanceSockets(ctx, name)
	if err != nil {
		return err
	}
	instances, err := conn.Instances(ctx, name)
	if err != nil {
		return err
	}
	var jobs []systemd.Job
	for _, socket := range sockets {
		unit := name.Instance(socket.Number)
		used := slices.ContainsFunc(instances, func(in systemd.Instance) bool { return in.Name == unit && (!in.Dead() || in.JobType != "") })
		if socket.ActiveState == "active" && !used && !slices.Contains(wanted, unit) {
			log.Info("the instance is not enabled, its listener closes", "instance", socket.Number)
			jobs = append(jobs, systemd.Job{Verb: systemd.Stop, Unit: socket.Name})
		}
	}
	return conn.Run(ctx, jobs...)
}

// askedFor reports whether an administrator restarted the shim, and removes the note of its end.
// Without a note there was no shim before.
//
// If an administrator restarts the app after the note, while PID 1 waits for its own restart, the
// new shim starts before PID 1 would have started it: PID 1 waits at least for RestartSec=. A
// restart in the last moments of the wait counts as PID 1's. NRestarts= does not help: if the
// control socket is restarted with the service, systemd 257 resets it each time.
func askedFor(ctx context.Context, conn *systemd.Conn, name app.Name, note string) (bool, error) {
	text, err := os.Readlink(note)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = os.Remove(note)
	}
	if err != nil || text == restarted {
		return err == nil, err
	}
	ended, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return false, fmt.Errorf("read end of the balancer: %w", err)
	}
	start, delay, err := conn.ServiceStart(ctx, name.Service())
	return err == nil && start-ended < delay, err
}

// monotonic returns CLOCK_MONOTONIC in microseconds, which PID 1 uses for its times too.
func monotonic() (int64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return now.Nano() / 1000, nil
}

// renew restarts the instances that are older than the shim, and waits for the others, which start
// with it.
func renew(ctx context.Context, conn *systemd.Conn, name app.Name, shim systemd.UnitState, extra []int) error {
	instances, err := conn.Instances(ctx, name)
	if err != nil {
		return err
	}
	var jobs []systemd.Job
	for _, in := range instances {
		// An instance that an administrator has stopped stays so.
		if in.ActiveState == "inactive" && in.JobType != "start" || in.JobType == "stop" || slices.Contains(extra, in.Number) {
			continue
		}
		instance, err := conn.Unit(ctx, in.Name)
		if err != nil {
			return err
		}
		verb := systemd.Start // nothing to do for one that is up; one that starts is waited for
		if instance.InactiveExit < shim.InactiveExit {
			verb = systemd.Restart
		}
		jobs = append(jobs, systemd.Job{Verb: verb, Unit: in.Name})
	}
	if err := conn.Run(ctx, jobs...); err != nil {
		return fmt.Errorf("renew instances of %s: %w", name, err)
	}
	return nil
}
