package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/systemd"
)

// Limits of the upgrade of one shim. A rollout of many instances that drain slowly is not waited
// for.
const (
	settleTimeout  = 2 * time.Minute
	successTimeout = 30 * time.Second
)

// Upgrade restarts every running shim whose unit names lbshim and that was started before program
// was replaced: what lbshim becomes to be a shim. A package runs it after an upgrade. Connections are
// not affected, as the kernel steers without a shim.
//
// Upgrade ends the old process, and PID 1 starts the next one; systemctl restart would restart the
// instances too. A shim with a rollout under way gets time to finish it. Upgrade returns when all
// shims are up again. Errors are those of single apps; the other apps are handled all the same. It
// needs root, to see the programs of processes.
func Upgrade(ctx context.Context, conn *systemd.Conn, manager systemd.Endpoint, lbshim, program string, log *slog.Logger) error {
	shims, err := conn.ListUnits(ctx, "*"+controlSuffix)
	if err != nil {
		return err
	}
	u := &upgrade{conn: conn, manager: manager, lbshim: lbshim, program: program, log: log}
	var errs []error
	for _, s := range shims {
		name, err := app.ParseName(strings.TrimSuffix(s.Name, controlSuffix))
		if err != nil {
			continue // somebody else's
		}
		if err := u.one(ctx, name.Service()); err != nil {
			errs = append(errs, fmt.Errorf("upgrade %s: %w", name.Service(), err))
		}
	}
	return errors.Join(errs...)
}

const controlSuffix = "-control.socket"

type upgrade struct {
	conn    *systemd.Conn
	manager systemd.Endpoint
	lbshim  string // what units name
	program string // what runs
	log     *slog.Logger
}

func (u *upgrade) one(ctx context.Context, unit string) error {
	if argv, err := u.conn.ExecStart(ctx, unit); err != nil || argv[0] != u.lbshim {
		return nil // not of ours, or of another installation
	}
	// A shim that never gets ready needs no action: PID 1 starts it again and again.
	old, err := u.await(ctx, unit, settleTimeout, func(s systemd.UnitState) bool {
		return s.ActiveState == "active" || gone(s) || u.isCurrent(s.MainPID)
	})
	if err != nil || gone(old) || u.isCurrent(old.MainPID) {
		return err
	}
	if err := u.conn.KillMain(ctx, unit, "SIGTERM"); err != nil {
		return err
	}
	next, err := u.await(ctx, unit, successTimeout, func(s systemd.UnitState) bool {
		return gone(s) || s.ActiveState == "active" && u.isCurrent(s.MainPID)
	})
	if err != nil || gone(next) { // stopped meanwhile
		return err
	}
	u.log.Info("balancer is upgraded", "unit", unit, "pid", next.MainPID)
	return nil
}

// gone reports that a service has no process and will not soon have one. Between the halves of a
// restart, also by PID 1, a service is inactive but has a job or waits for one.
func gone(s systemd.UnitState) bool {
	return s.MainPID == 0 && s.JobType == "" && s.Dead() && !s.AwaitsRestart()
}

// isCurrent says that a process runs the file that is at u.program now. Its file can be told also
// when that has no name any more.
func (u *upgrade) isCurrent(pid int) bool {
	running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false
	}
	installed, err := os.Stat(u.program)
	return err == nil && os.SameFile(installed, running)
}

// await returns the state of unit when ok likes it.
func (u *upgrade) await(ctx context.Context, unit string, limit time.Duration, ok func(systemd.UnitState) bool) (systemd.UnitState, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	units := systemd.NewWatcher(systemd.WatcherOptions{Endpoint: u.manager})
	defer units.Close()
	units.Watch(unit)
	for {
		select {
		case <-units.Events():
			// Signals for one change arrive one by one, so judge only by a complete read of the
			// state.
			state, err := u.conn.Unit(ctx, unit)
			if err == nil && gone(state) {
				// It is read in steps, between which the job of a start may have ended.
				state, err = u.conn.Unit(ctx, unit)
			}
			if err != nil || ok(state) {
				return state, err
			}
		case <-ctx.Done():
			state, err := u.conn.Unit(context.WithoutCancel(ctx), unit)
			return state, errors.Join(fmt.Errorf("it is still %s (%s) after %s", state.ActiveState, state.SubState, limit), err)
		}
	}
}
