package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/test/rig"
)

// appears is how long a fault waits for the process that it hits.
const appears = 2 * time.Second

// killShim kills the shim as often as it comes back, each time a little later than before.
//
// It leaves the shim of a Node.js app that is stopped in the same step; see needsShim.
func killShim(ctx context.Context, w *world, s step, a act) error {
	if w.needsShim(s, a) {
		return nil
	}
	for i := range a.times {
		if err := w.killOne(ctx, w.apps[a.app].shim(), isProgram, appears); err != nil {
			return err
		}
		pause(ctx, time.Duration(i)*50*time.Millisecond)
	}
	return nil
}

// needsShim says that a takes the shim away from a Node.js program that is stopped in the same
// step. Nobody else tells the program to let its clients go, and those here are never idle: the
// drain goes on to its time-out, and what is under way ends with it; see docs/limits.md.
func (w *world) needsShim(s step, a act) bool {
	return w.apps[a.app].javaScript() && s.merges(a, "stop-start")
}

func killRollout(ctx context.Context, w *world, _ step, a act) error {
	return w.killOne(ctx, w.apps[a.app].shim(), isRollout, appears)
}

func killBus(ctx context.Context, w *world, _ step, a act) error {
	return w.killOne(ctx, "dbus.service", isProgram, appears)
}

// killOne kills a process of unit that is wanted. If there is none, nothing is done.
func (w *world) killOne(ctx context.Context, unit string, want func(rig.Process) bool, wait time.Duration) error {
	p, err := w.find(ctx, unit, want, wait)
	if p == nil {
		return err
	}
	defer p.close()
	return p.signal(unix.SIGKILL)
}

// killInstance stops an instance, notes whose connections it has accepted, and kills it.
func killInstance(ctx context.Context, w *world, _ step, a act) error {
	p, err := w.find(ctx, w.apps[a.app].instance(a.instance), isProgram, appears)
	if p == nil {
		return err
	}
	defer p.close()
	if err := p.stop(); err != nil {
		return err
	}
	clients, err := p.clients()
	if err != nil {
		return p.signal(unix.SIGKILL) // it has ended by itself
	}
	w.ledger.kill(kill{app: a.app, at: time.Now(), ports: clients})
	return p.signal(unix.SIGKILL)
}

func freezeInstance(ctx context.Context, w *world, _ step, a act) error {
	return w.freeze(ctx, w.apps[a.app].instance(a.instance), a.length)
}

func freezeShim(ctx context.Context, w *world, _ step, a act) error {
	return w.freeze(ctx, w.apps[a.app].shim(), a.length)
}

func freezeBus(ctx context.Context, w *world, _ step, a act) error {
	return w.freeze(ctx, "dbus.service", a.length)
}

func (w *world) freeze(ctx context.Context, unit string, length time.Duration) error {
	p, err := w.find(ctx, unit, isProgram, appears)
	if p == nil {
		return err
	}
	defer p.close()
	if err := p.signal(unix.SIGSTOP); err != nil {
		return err
	}
	pause(ctx, length)
	return p.signal(unix.SIGCONT)
}

func daemonReload(ctx context.Context, w *world, _ step, _ act) error {
	_, err := w.run(ctx, "systemctl", "daemon-reload")
	return err
}

func daemonReexec(ctx context.Context, w *world, _ step, _ act) error {
	_, err := w.run(ctx, "systemctl", "daemon-reexec")
	return err
}

// fillRoot and fillRun leave no block free; emptyRoot and emptyRun undo it. What fills /run is its
// size.
const (
	fillRoot  = `fallocate -l "$(df --output=avail -B1 / | tail -n 1 | tr -d ' ')" /var/tmp/full || true; cat /dev/zero >>/var/tmp/full 2>/dev/null || true`
	emptyRoot = `rm -f /var/tmp/full`
	fillRun   = `mount -o "remount,size=$(df --output=used -k /run | tail -n 1 | tr -d ' ')k" /run`
	emptyRun  = `mount -o remount,size=64M /run`
)

func fullDisk(ctx context.Context, w *world, _ step, a act) error {
	fill, empty := fillRoot, emptyRoot
	if a.times > 1 {
		fill, empty = fill+"\n"+fillRun, empty+"\n"+emptyRun
	}
	if _, err := w.run(ctx, "sh", "-c", fill); err != nil {
		return err
	}
	pause(ctx, a.length)
	_, err := w.run(ctx, "sh", "-c", empty)
	return err
}

// strangerProgram is test/chaos/stranger in the container.
const strangerProgram = "/usr/local/bin/stranger"

func forgedSignals(ctx context.Context, w *world, _ step, a act) error {
	return w.asNobody(ctx, "forge", a.length, w.honest)
}

func flood(ctx context.Context, w *world, _ step, a act) error {
	targets := []string{"/run/systemd/private", "/run/systemd/journal/stdout"}
	for _, name := range w.honest {
		targets = append(targets, w.apps[name].addr(), "/run/unitgen/"+name+"/control")
		if w.apps[name].javaScript() {
			targets = append(targets, "/run/unitgen/"+name+"/channel")
		}
	}
	return w.asNobody(ctx, "flood", a.length, targets)
}

// asNobody runs the stranger as a user without rights.
func (w *world) asNobody(ctx context.Context, verb string, length time.Duration, args []string) error {
	argv := append([]string{"runuser", "-u", "nobody", "--", strangerProgram, verb, length.String()}, args...)
	out, err := w.run(ctx, argv...)
	if err == nil && strings.HasPrefix(out, "0 ") {
		err = fmt.Errorf("%q did nothing: %s", argv, out)
	}
	return err
}
