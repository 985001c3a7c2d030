package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// lie is the error of a command that said that it succeeded, and did not. No other fault excuses
// it, unless the row of the command says so.
type lie struct{ error }

func reload(ctx context.Context, w *world, s step, a act) error {
	if w.needsShim(s, a) {
		return nil // it cancels the stop, and PID 1 ends the shim before the instances
	}
	// A reload that meets the start after a crash is merged into that, and PID 1 reports its
	// success; see ARCHITECTURE.md.
	return w.renew(ctx, s, a, "reload", s.merges(a, "kill-shim", "stop-start", "restart"))
}

func restart(ctx context.Context, w *world, s step, a act) error {
	return w.renew(ctx, s, a, "restart", s.merges(a, "stop-start"))
}

// renew runs a verb after which all instances must be new, unless it may be merged into another. The
// one that a shrink of the same step takes away may still be on its way out.
func (w *world) renew(ctx context.Context, s step, a act, verb string, merged bool) error {
	name := a.app
	before, err := w.mainPIDs(ctx, name, false)
	if err != nil {
		return err
	}
	if _, err := w.run(ctx, "systemctl", verb, name); err != nil || merged {
		return err
	}
	after, err := w.mainPIDs(ctx, name, s.merges(a, "shrink"))
	if err != nil {
		return err
	}
	for unit, pid := range before {
		if pid != "0" && after[unit] == pid {
			return lie{fmt.Errorf("systemctl %s %s succeeded, and %s is still process %s", verb, name, unit, pid)}
		}
	}
	return nil
}

// mainPIDs are those of the instances of an app; with shrinks, without the last instance while that
// is stopped.
func (w *world) mainPIDs(ctx context.Context, name string, shrinks bool) (map[string]string, error) {
	args := []string{"systemctl", "show", "--property=Id,MainPID,ActiveState"}
	for i := 1; i <= instances; i++ {
		args = append(args, w.apps[name].instance(i))
	}
	out, err := w.run(ctx, args...)
	if err != nil {
		return nil, err
	}
	pids := map[string]string{}
	for _, unit := range parseShow(out) {
		if shrinks && unit["ActiveState"] == "deactivating" && unit["Id"] == w.apps[name].instance(instances) {
			continue
		}
		pids[unit["Id"]] = unit["MainPID"]
	}
	return pids, nil
}

// stopStart stops the app, sees that the port is closed, and starts it.
func stopStart(ctx context.Context, w *world, s step, a act) error {
	starts, opened := w.ledger.close(a.app, s.merges(a, "reload", "broken-release"))
	_, err := w.run(ctx, "systemctl", "stop", a.app)
	if err == nil && !s.spoiled(a) {
		err = w.refused(ctx, a.app)
	}
	pause(ctx, a.length)
	if err == nil && !s.spoiled(a) {
		err = w.refused(ctx, a.app)
	}
	starts()
	_, started := w.run(ctx, "systemctl", "start", a.app)
	if s.merges(a, "kill-shim") {
		started = nil // it says that the shim has died; PID 1 starts the next one
	}
	if started == nil {
		opened() // else restore starts the app
	}
	return errors.Join(err, started)
}

// refused checks that the port of a stopped app is closed.
func (w *world) refused(ctx context.Context, name string) error {
	conn, err := w.c.DialContext(ctx, "tcp", w.apps[name].addr())
	if err == nil {
		conn.Close()
		return lie{fmt.Errorf("systemctl stop %s succeeded, and its port is open", name)}
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("connect to stopped %s: %w", name, err)
	}
	return nil
}

func grow(ctx context.Context, w *world, _ step, a act) error {
	return w.scale(ctx, a.app, instances+1)
}

func shrink(ctx context.Context, w *world, _ step, a act) error {
	return w.scale(ctx, a.app, instances-1)
}

// scale changes the number of instances.
func (w *world) scale(ctx context.Context, name string, n int) error {
	_, err := w.run(ctx, "unitgen", "scale", name, fmt.Sprint(n))
	return err
}

func restartOne(ctx context.Context, w *world, _ step, a act) error {
	_, err := w.run(ctx, "systemctl", "restart", w.apps[a.app].instance(a.instance))
	return err
}

func stopStartOne(ctx context.Context, w *world, _ step, a act) error {
	unit := w.apps[a.app].instance(a.instance)
	_, err := w.run(ctx, "systemctl", "stop", unit)
	pause(ctx, a.length)
	_, started := w.run(ctx, "systemctl", "start", unit)
	return errors.Join(err, started)
}

// brokenRelease reloads to a program that does not work, which must fail, and puts the good one
// back.
func brokenRelease(ctx context.Context, w *world, s step, a act) error {
	if w.needsShim(s, a) {
		return nil // as in reload
	}
	release := "broken"
	if a.times == 3 {
		release = "hangs"
	}
	name := w.apps[a.app]
	if err := w.release(ctx, name, release); err != nil {
		return err
	}
	_, failed := w.run(ctx, "systemctl", "reload", a.app)
	if err := w.release(ctx, name, "good"); err != nil {
		return err
	}
	if failed == nil && !s.merges(a, "kill-shim", "stop-start", "restart", "broken-release") {
		return lie{fmt.Errorf("systemctl reload %s succeeded with release %q", a.app, release)}
	}
	return nil
}

// run runs a command in the container; that it fails is an error with what it said.
func (w *world) run(ctx context.Context, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	out, err := w.c.Exec(ctx, argv...)
	if err == nil && out.Status != 0 {
		err = fmt.Errorf("%q: exit status %d: %s", argv, out.Status, strings.TrimSpace(out.Stdout+out.Stderr))
	}
	return out.Stdout, err
}

// parseShow reads what systemctl show prints of several units.
func parseShow(text string) []map[string]string {
	var units []map[string]string
	for block := range strings.SplitSeq(text, "\n\n") {
		unit := map[string]string{}
		for line := range strings.Lines(block) {
			if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
				unit[name] = value
			}
		}
		if len(unit) > 0 {
			units = append(units, unit)
		}
	}
	return units
}
