package systemd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Version returns the manager's major version, such as 257.
func (c *Conn) Version(ctx context.Context) (int, error) {
	v, err := c.property(ctx, managerPath, managerIf, "Version")
	if err != nil {
		return 0, fmt.Errorf("read version of systemd: %w", err)
	}
	text, _ := v.Value().(string)
	return parseVersion(text)
}

// parseVersion takes the number off a version as distributions write it: 252.39-1~deb12u1, 257.13,
// v258-rc1.
func parseVersion(text string) (int, error) {
	rest := strings.TrimPrefix(text, "v")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	n, err := strconv.Atoi(rest)
	if err != nil {
		return 0, fmt.Errorf("parse version of systemd %q: no number", text)
	}
	return n, nil
}

// Reload makes the manager read all unit files again (systemctl daemon-reload) and returns when it
// has.
func (c *Conn) Reload(ctx context.Context) error {
	if err := c.call(ctx, "Reload", nil); err != nil {
		return fmt.Errorf("reload systemd: %w", err)
	}
	return nil
}

// ResetFailed clears the failed state, result and restart counter of unit. A unit that is not
// loaded has none: no error.
func (c *Conn) ResetFailed(ctx context.Context, unit string) error {
	err := c.call(ctx, "ResetFailedUnit", []any{unit})
	if err != nil && !IsNoSuchUnit(err) {
		return fmt.Errorf("reset failed state of %s: %w", unit, err)
	}
	return nil
}

// EnableUnitFiles makes the links of the units' [Install] sections, as systemctl enable does, and
// replaces no link with another target. The manager sees them at its next Reload. It reports
// whether any link was made.
func (c *Conn) EnableUnitFiles(ctx context.Context, units ...string) (changed bool, err error) {
	var install bool
	var changes []fileChange
	if err := c.call(ctx, "EnableUnitFiles", []any{units, false, false}, &install, &changes); err != nil {
		return false, fmt.Errorf("enable %s: %w", strings.Join(units, " "), err)
	}
	return len(changes) > 0, nil
}

// UnitFileState returns enabled, disabled, static, ... for the present files; property
// UnitFileState of a loaded unit is the state when it was first read after the last Reload. It is
// empty for a unit without a file.
func (c *Conn) UnitFileState(ctx context.Context, unit string) (string, error) {
	var state string
	err := c.call(ctx, "GetUnitFileState", []any{unit}, &state)
	if isDBusError(err, "org.freedesktop.DBus.Error.FileNotFound") || IsNoSuchUnit(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read whether %s is enabled: %w", unit, err)
	}
	return state, nil
}

// fileChange is one element of the changes that Manager reports: the action and the file.
type fileChange struct{ Type, File, Source string }

// ExecStart returns the argument vector of the first ExecStart= line of a service, as the manager
// would run it now: after its last Reload, with drop-ins, not as the running process was started.
// Specifiers are expanded, environment variables are not.
func (c *Conn) ExecStart(ctx context.Context, unit string) ([]string, error) {
	v, err := c.property(ctx, UnitPath(unit), busName+".Service", "ExecStart")
	if err != nil {
		return nil, fmt.Errorf("read ExecStart= of %s: %w", unit, err)
	}
	var lines []struct {
		Path                             string
		Argv                             []string
		IgnoreFailure                    bool
		Start, StartMono, Exit, ExitMono uint64
		PID                              uint32
		Code, Status                     int32
	}
	if err := v.Store(&lines); err != nil {
		return nil, fmt.Errorf("read ExecStart= of %s: %w", unit, err)
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("read ExecStart= of %s: it has none", unit)
	}
	return lines[0].Argv, nil
}

// ServiceStart returns when the main process of a service was started last, and how long the
// manager waits before it starts a service again by itself (RestartSec=), both in µs; the first by
// CLOCK_MONOTONIC.
func (c *Conn) ServiceStart(ctx context.Context, unit string) (start, delay int64, err error) {
	for name, to := range map[string]*int64{"ExecMainStartTimestampMonotonic": &start, "RestartUSec": &delay} {
		v, err := c.property(ctx, UnitPath(unit), busName+".Service", name)
		if err != nil {
			return 0, 0, fmt.Errorf("read %s of %s: %w", name, unit, err)
		}
		number, ok := v.Value().(uint64)
		if !ok {
			return 0, 0, fmt.Errorf("read %s of %s: it is %s", name, unit, v)
		}
		*to = int64(number)
	}
	return start, delay, nil
}

// KillSignal returns the number of the signal with which the manager would stop a service now.
func (c *Conn) KillSignal(ctx context.Context, unit string) (int, error) {
	v, err := c.property(ctx, UnitPath(unit), busName+".Service", "KillSignal")
	if err != nil {
		return 0, fmt.Errorf("read KillSignal= of %s: %w", unit, err)
	}
	number, ok := v.Value().(int32)
	if !ok {
		return 0, fmt.Errorf("read KillSignal= of %s: it is %s", unit, v)
	}
	return int(number), nil
}

// IsNoSuchUnit reports whether the manager knows no unit of the name that was asked for.
func IsNoSuchUnit(err error) bool { return isDBusError(err, busName+".NoSuchUnit") }

// IsNoUnitForPID reports whether the process that was asked for is of no unit, or has ended.
func IsNoUnitForPID(err error) bool {
	return isDBusError(err, busName+".NoUnitForPID") || isDBusError(err, busName+".NoSuchProcess") ||
		isDBusError(err, "org.freedesktop.DBus.Error.UnixProcessIdUnknown")
}

// isDBusError compares the name of a D-Bus error. godbus returns errors of calls by value.
func isDBusError(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}

// UnitByPID returns the name of the unit that a process belongs to.
func (c *Conn) UnitByPID(ctx context.Context, pid int) (string, error) {
	var path dbus.ObjectPath
	if err := c.call(ctx, "GetUnitByPID", []any{uint32(pid)}, &path); err != nil {
		return "", fmt.Errorf("find unit of process %d: %w", pid, err)
	}
	v, err := c.property(ctx, path, unitIf, "Id")
	if err != nil {
		return "", fmt.Errorf("find unit of process %d: %w", pid, err)
	}
	name, _ := v.Value().(string)
	return name, nil
}

// KillMain sends a signal, such as SIGTERM, to the main process of a service (systemctl kill
// --kill-whom=main).
func (c *Conn) KillMain(ctx context.Context, unit, signal string) error {
	return c.kill(ctx, unit, "main", signal)
}

// KillControl sends a signal to the process of ExecReload=, ExecStop= and so on that runs
// (--kill-whom=control).
func (c *Conn) KillControl(ctx context.Context, unit, signal string) error {
	return c.kill(ctx, unit, "control", signal)
}

func (c *Conn) kill(ctx context.Context, unit, whom, signal string) error {
	number := unix.SignalNum(signal)
	if number == 0 {
		return fmt.Errorf("signal %s: there is no %q", unit, signal)
	}
	if err := c.call(ctx, "KillUnit", []any{unit, whom, int32(number)}); err != nil {
		return fmt.Errorf("signal %s: %w", unit, err)
	}
	return nil
}
