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

// endFile of the app's runtime directory says how the last shim ended: asked for a restart, or when.
const (
	endFile   = "balancer-end"
	restarted = "restart"
)

// NoteEnd runs after the shim has ended, before PID 1 starts the next one: by its note Resume tells a restart that an
// administrator asked for from one by PID 1.
//
// Instances that have failed, or wait for their restart, need no drain. On a restart of the app they are started at
// once, and their start limit is forgiven: the next shim is ready with the first instance that is.
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

// writeNote makes the note. It is the target of a symbolic link, for which a full /run has room: tmpfs keeps a short one in the inode
// (shmem_symlink() in mm/shmem.c). A restart whose note is missing would renew nobody, and be a success.
func writeNote(path, text string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(text, path)
}

// Resume runs when a new shim is ready. After a restart that an administrator asked for it renews the instances that
// are older than the shim, all at once, each drained by its own ExecStop=; connections wait at the parking listener
// meanwhile. It returns when all are ready, and so does the restart; an instance that does not get ready makes it fail.
//
// ExecStop= of the old shim would be the natural place, beside a shim that lives. But PID 1 leaves ExecStop= out where
// it stops a service that is reloading, starting or between a crash and its restart (service_stop in
// src/core/service.c), and would start the shim after one that died meanwhile only when the drains that wait for it
// have ended.
//
// After any start it removes the extra instances of a rollout that was cut off by the end of the shim.
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
	return errors.Join(append(errs, rollout.RemoveAbandoned(ctx, conn, name, runtimeDir, extra, log))...)
}

// askedFor says whether an administrator asked for the start of a shim after another, and takes the note of its end away.
// Without a note there was no shim before.
//
// A restart that was asked for after the note, while PID 1 waited with its own, comes before that would: PID 1 waits for
// RestartSec= at least. One in the last moments of the wait is taken for PID 1's. Its count of restarts, NRestarts=, does not
// tell: where the control socket is restarted with the service, systemd 257 begins it anew each time.
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

// monotonic is CLOCK_MONOTONIC in microseconds, by which PID 1 dates too.
func monotonic() (int64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return now.Nano() / 1000, nil
}

// renew restarts the instances that are older than the shim, and waits for the others, which start with it.
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

// Forget removes the note of NoteEnd, of an app that is gone.
func Forget(runtimeDir string) error {
	err := os.Remove(filepath.Join(runtimeDir, endFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget end of the balancer: %w", err)
	}
	return nil
}
